"""Who is let in: clients of a device, and the keys that its tracker lends."""

import socket
import struct
import threading
from contextlib import closing

import pytest
from tvm.rpc.base import (
    RPC_CODE_MISMATCH,
    RPC_CODE_SUCCESS,
    RPC_MAGIC,
    RPC_TRACKER_MAGIC,
    TrackerCode,
    recvall,
    recvjson,
)

from mpcompile.runtime.server import door as doors
from mpcompile.runtime.server import tracker as trackers
from mpcompile.runtime.server.door import FIRST_WORDS, INIT_SERVER, LONGEST_KEY, MOST_WAITING, Door
from mpcompile.runtime.server.lend import Lender
from mpcompile.runtime.server.tracker import TrackerEntry, ask, connect_tracker
from tests.patience import SOON, until


@pytest.fixture
def door():
    said: list[str] = []
    with closing(Door("127.0.0.1", 0, "k", lambda: {"key": "k"}, said.append)) as found:
        found.said = said
        found.open("good".__eq__)
        yield found


def comes(door: Door, said: bytes) -> socket.socket:
    """A client that says so."""
    client = socket.create_connection(door.address, SOON)
    client.sendall(said)
    return client


def hello(name: str) -> bytes:
    return struct.pack("<ii", RPC_MAGIC, len(name)) + name.encode()


GOOD = hello("client:good") + FIRST_WORDS.pack(21, INIT_SERVER)
SUCCESS = struct.pack("<ii", RPC_CODE_SUCCESS, len("server:k")) + b"server:k"


def sent_away(client: socket.socket) -> bool:
    """Whether the other end has closed; a reset where there were words that nobody read."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def waits(door: Door, count: int) -> None:
    until(lambda: len(door._waiting) == count, pause=0.01)


def test_clients_wait_for_their_turn_and_those_that_gave_up_are_skipped(door, monkeypatch):
    monkeypatch.setattr(doors, "LOOK_SECONDS", SOON)
    gone = comes(door, GOOD)
    waits(door, 1)
    refused = [comes(door, hello(name)) for name in ("client:bad", "server:good", "client")]
    endless = comes(door, hello("client:" + "x" * LONGEST_KEY))
    timed = comes(door, hello("client:good -timeout=5") + FIRST_WORDS.pack(21, INIT_SERVER))
    waits(door, 2)
    later = comes(door, GOOD)
    waits(door, 3)
    assert [struct.unpack("<i", recvall(client, 4))[0] for client in refused] == [RPC_CODE_MISMATCH] * 3
    assert all(sent_away(client) for client in (endless, *refused))
    gone.close()
    until(lambda: doors._hung_up(next(iter(door._waiting)).connection))
    assert door.bell.recv(8) and recvall(timed, len(SUCCESS)) == SUCCESS

    found = door.enter()
    assert found.seconds == 5.0 and found.address == "127.0.0.1" and found.connection.getblocking()
    assert recvall(found.connection, FIRST_WORDS.size) == FIRST_WORDS.pack(21, INIT_SERVER)
    second = door.enter()
    assert second.seconds is None and door.enter() is None
    with pytest.raises(BlockingIOError):
        door.bell.recv(1)
    for end in (timed, later, endless, found.connection, second.connection, *refused):
        end.close()


def test_more_than_may_wait_are_sent_away(door):
    clients = [comes(door, GOOD) for _ in range(MOST_WAITING)]
    waits(door, MOST_WAITING)
    with comes(door, GOOD) as more:
        assert recvall(more, len(SUCCESS)) == SUCCESS and sent_away(more) and len(door._waiting) == MOST_WAITING
    for client in clients:
        client.close()


def test_who_hangs_up_while_it_waits_leaves_no_connection(door, monkeypatch):
    monkeypatch.setattr(doors, "LOOK_SECONDS", 0.01)
    with comes(door, GOOD):
        waits(door, 1)
    until(lambda: not door._waiting and not door._reception._guests)


def test_others_are_told_what_this_is_or_nothing(door, monkeypatch):
    looks = comes(door, struct.pack("<i", RPC_TRACKER_MAGIC))
    assert struct.unpack("<i", recvall(looks, 4))[0] == RPC_MAGIC and recvjson(looks) == {"key": "k"}
    monkeypatch.setattr(doors, "HANDSHAKE_SECONDS", 0.1)
    for said in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"ab",
        b"",
        hello("client:good -timeout=soon"),
        struct.pack("<ii", RPC_MAGIC, 1) + b"\xff",
    ):
        with comes(door, said) as client:
            assert sent_away(client)
    assert not door._waiting
    looks.close()


@pytest.mark.parametrize("words", [FIRST_WORDS.pack(21, 1), FIRST_WORDS.pack(1 << 40, INIT_SERVER)])
def test_who_has_the_key_and_begins_no_session_does_not_get_the_device(door, words):
    with comes(door, hello("client:good") + words) as mute:
        until(lambda: sent_away(mute))
    assert not door._waiting and door.said == ["127.0.0.1 was sent away: it begins no session of TVM's RPC"]


def test_who_has_the_key_and_leaves_does_not_get_the_device(door):
    with comes(door, hello("client:good") + b"\x15") as leaves:
        leaves.shutdown(socket.SHUT_WR)
        until(lambda: sent_away(leaves))
    assert not door._waiting and not door.said


def test_who_has_the_key_and_says_no_more_does_not_get_the_device(door, monkeypatch):
    monkeypatch.setattr(doors, "HANDSHAKE_SECONDS", 0.3)
    with comes(door, hello("client:good") + b"\x15") as mute:
        until(lambda: sent_away(mute))
    assert not door._waiting and door.said == ["127.0.0.1 was sent away: its handshake takes more than 0.3 s"]


def test_a_client_whose_words_come_in_pieces_is_let_in(door, monkeypatch):
    monkeypatch.setattr(doors, "HANDSHAKE_SECONDS", SOON)
    with socket.create_connection(door.address, SOON) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(GOOD), 2):
            assert not door._waiting
            client.sendall(GOOD[at : at + 2])
        waits(door, 1)
        found = door.enter()
        assert recvall(found.connection, FIRST_WORDS.size) == FIRST_WORDS.pack(21, INIT_SERVER)
        found.connection.close()


def test_a_client_that_drips_is_sent_away(door, monkeypatch):
    """However patiently each of its bytes is awaited."""
    monkeypatch.setattr(doors, "HANDSHAKE_SECONDS", 0.2)
    done, said = threading.Event(), hello("client:good" + " " * (LONGEST_KEY - 50))
    client = comes(door, said[:8])

    def drip() -> None:
        for at in range(8, len(said)):
            if done.wait(0.01):
                return
            try:
                client.sendall(said[at : at + 1])
            except OSError:
                return

    drips = threading.Thread(target=drip)
    drips.start()
    try:
        assert sent_away(client) and not door._waiting
    finally:
        done.set()
        drips.join()
        client.close()


def test_a_key_that_was_lent_and_not_used_is_replaced(monkeypatch):
    """A host may die, or change its mind, between the tracker and the device."""
    monkeypatch.setattr(trackers, "PING", 0.05)
    monkeypatch.setattr(trackers, "UNUSED", 0.1)
    lender = Lender("127.0.0.1", 0)
    lends = threading.Thread(target=lender.run, daemon=True)
    lends.start()
    entry = TrackerEntry(lender.address, "k", 1234, None, dict, lambda line: None)
    entry.start()
    entry.set_free(True)
    try:
        with connect_tracker(lender.address, SOON) as host:
            host.settimeout(SOON)

            def borrow() -> str:
                _, (_, port, key) = ask(host, [TrackerCode.REQUEST, "k", "", 1])
                assert port == 1234
                return key

            first, second = borrow(), borrow()
            assert first != second and entry.accepts(first) and entry.accepts(second)
            entry.set_free(False)
            assert not entry.accepts(first) and not entry.accepts(second)
            entry.set_free(True)
            until(lambda: entry.accepts(borrow()))  # one that was put before it was busy may come first
    finally:
        entry.stop()
        lender.stop()
        lends.join(SOON)
    assert not entry.is_alive() and not lends.is_alive()
