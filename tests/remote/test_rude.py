"""Clients that are rude to `mpcompile serve` and `mpcompile tracker`, real processes: an honest one next to them is
served, at most one line is said of each kind, and no descriptor and no thread is left. And servers that are rude to
clients."""

import re
import resource
import socket
import struct
import threading
from collections import Counter
from contextlib import closing, suppress

import psutil
import pytest
from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC, TrackerCode, recvall, sendjson

from mpcompile import cli
from mpcompile.errors import TargetError
from mpcompile.remote import tracker as trackers
from mpcompile.remote.tracker import Key, devices
from mpcompile.runtime.server import door as doors
from mpcompile.runtime.server import lend, reception
from mpcompile.runtime.server.door import Door
from mpcompile.runtime.server.lend import Lender
from mpcompile.runtime.server.reception import MOST_OF_ONE
from mpcompile.runtime.state import State
from tests.patience import SOON, until
from tests.remote import simulated
from tests.remote.processes import Process
from tests.remote.test_door import hello, sent_away


class Rude:
    """Connections to `address`, of a client whose words begin with `magic`; closed with the block."""

    def __init__(self, address: str, magic: int):
        host, port = address.split(":")
        self.address, self.magic = (host, int(port)), struct.pack("<i", magic)
        self.sockets: list[socket.socket] = []
        self._ended, self._threads = threading.Event(), []

    def says(self, words: bytes, source: str = "127.0.0.1") -> socket.socket:
        found = socket.create_connection(self.address, SOON, (source, 0))
        self.sockets.append(found)
        found.sendall(words)
        return found

    def drips(self, words: bytes) -> None:
        """A byte each two seconds."""
        connection = self.says(words[:1])

        def drip() -> None:
            for at in range(1, len(words)):
                if self._ended.wait(2):
                    return
                try:
                    connection.sendall(words[at : at + 1])
                except OSError:
                    return

        self._threads.append(threading.Thread(target=drip))
        self._threads[-1].start()

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for connection in self.sockets:
            connection.close()


def garbage(rude: Rude) -> None:
    for _ in range(20):
        rude.says(b"\xff\x00GET / HTTP/1.1\r\n\r\n" * 10)


def half_open(rude: Rude) -> None:
    for _ in range(500):
        rude.says(b"")


def long_words(rude: Rude) -> None:
    for length in (2**31 - 1, -1, 0):
        for _ in range(5):
            rude.says(rude.magic + struct.pack("<i", length))


def dripping(rude: Rude) -> None:
    for _ in range(16):
        rude.drips(hello("client:k"))


def dripping_after_the_magic(rude: Rude) -> None:
    for _ in range(16):
        rude.says(rude.magic + struct.pack("<i", 4000) + b"x")


def closing_at_once(rude: Rude) -> None:
    for words in (b"", rude.magic, rude.magic[:2], rude.magic + struct.pack("<i", 8)):
        for _ in range(20):
            rude.says(words).close()


def never_reading(rude: Rude) -> None:
    question = struct.pack("<i", 3) + f"[{TrackerCode.SUMMARY}]".encode()
    words = hello("client:k") if rude.magic == struct.pack("<i", RPC_MAGIC) else rude.magic + 1000 * question
    for _ in range(8):
        rude.says(words)


RUDE = (garbage, half_open, long_words, dripping, dripping_after_the_magic, closing_at_once, never_reading)
SENT_AWAY = re.compile(r"^[\d:]{8} (\S+) was sent away: (.+)$")


class Served:
    """A process that serves, and what it has open while nobody is there."""

    def __init__(self, *arguments: str):
        self.process = Process(*arguments, "--port", "0")
        self.address = self.process.address
        self.magic = RPC_MAGIC if arguments[0] == "serve" else RPC_TRACKER_MAGIC
        until(self.ready, unless=self.process.over)
        self.idle = until(self.counts)

    def ready(self) -> bool:
        """Also: serves an honest client, all that there is to serve."""
        listed = devices(self.address)
        return self.magic == RPC_TRACKER_MAGIC or listed[0].told["free"]

    def counts(self) -> tuple[int, int] | None:
        """Descriptors, threads; None while it has a connection."""
        process = psutil.Process(self.process.process.pid)
        if any(c.status != psutil.CONN_LISTEN for c in process.net_connections("tcp")):
            return None
        return process.num_fds(), process.num_threads()


@pytest.fixture(scope="module")
def serves():
    found = Served("serve", "--key", "k")
    yield found
    found.process.end()


@pytest.fixture(scope="module")
def tracks():
    found = Served("tracker")
    yield found
    found.process.end()


def said_once(lines: list[str]) -> None:
    """Each of these lines of a server names another address or reason."""
    found = [match for line in lines if (match := SENT_AWAY.match(line))]
    assert [line for line in lines if not SENT_AWAY.match(line) and "session of 127.0.0.1" not in line] == []
    assert all(count == 1 for count in Counter(match.groups() for match in found).values()), lines


@pytest.mark.parametrize("rudely", RUDE, ids=lambda f: f.__name__)
def test_an_honest_host_is_lent_the_device_next_to_rude_ones(serves, rudely):
    with Rude(serves.address, serves.magic) as rude:
        rudely(rude)
        with until(Key(serves.address, "k").take, unless=serves.process.over) as device:
            assert device.about.cores > 0
    until(lambda: serves.ready() and serves.counts() == serves.idle, unless=serves.process.over)
    said_once(serves.process.lines[2:])


@pytest.mark.parametrize("rudely", RUDE, ids=lambda f: f.__name__)
def test_a_tracker_answers_honest_ones_next_to_rude_ones(tracks, rudely):
    with Rude(tracks.address, tracks.magic) as rude:
        rudely(rude)
        assert devices(tracks.address) == []
    until(lambda: tracks.counts() == tracks.idle, unless=tracks.process.over)
    said_once(tracks.process.lines[1:])


def test_a_tracker_without_descriptors_sends_the_silent_away():
    served = Served("tracker")
    try:
        most = served.idle[0] + 10
        resource.prlimit(served.process.process.pid, resource.RLIMIT_NOFILE, (most, most))
        with Rude(served.address, served.magic) as rude:
            for _ in range(50):
                rude.says(b"")
            assert devices(served.address) == []
        until(lambda: served.counts() == served.idle, unless=served.process.over)
        served.process.said("127.0.0.1 was sent away: the system lets nobody in .Too many open files")
        said_once(served.process.lines[1:])
    finally:
        served.process.end()


# -- patient servers: nobody is sent away for being slow, and so a server that waits for one client serves no other --------
ABOUT, STATE = simulated.ABOUT.to_json(), State("", 0, None, 0, 0).to_json()
REPORT = {"key": "k", "free": True, "seconds": 0.0, "client": "", "about": ABOUT, "state": STATE}


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(doors, "HANDSHAKE_SECONDS", SOON)
    monkeypatch.setattr(lend, "HANDSHAKE_SECONDS", SOON)
    monkeypatch.setattr(lend, "MESSAGE_SECONDS", SOON)


@pytest.fixture
def door(patient):
    with closing(Door("127.0.0.1", 0, "k", lambda: REPORT)) as found:
        found.open("k".__eq__)
        yield found


@pytest.fixture
def lender(patient):
    said: list[str] = []
    found = Lender("127.0.0.1", 0, said.append)
    found.said = said
    runs = threading.Thread(target=found.run)
    runs.start()
    yield found
    found.stop()
    runs.join()


def of(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


@pytest.mark.parametrize("rudely", [half_open, dripping, dripping_after_the_magic, never_reading])
def test_nobody_waits_for_a_slow_one(door, lender, rudely):
    for server, magic in ((door, RPC_MAGIC), (lender, RPC_TRACKER_MAGIC)):
        with Rude(of(server.address), magic) as rude:
            rudely(rude)
            assert len(devices(of(server.address))) == (server is door)
            open_still = server._reception._guests
            rest = min(len(rude.sockets), MOST_OF_ONE - 1)  # one made room for the honest one
            until(lambda: len(open_still) == rest)
        until(lambda: not open_still)


# -- too many --------------------------------------------------------------------------------------------------------------
def asks(connection: socket.socket, *message) -> bytes:
    """The length of the answer: that there is one."""
    sendjson(connection, list(message))
    answer = recvall(connection, 4)
    recvall(connection, struct.unpack("<i", answer)[0])
    return answer


def test_of_too_many_the_most_silent_goes_unless_it_holds_something(lender, monkeypatch):
    monkeypatch.setattr(reception, "MOST_OF_ONE", 4)
    with Rude(of(lender.address), RPC_TRACKER_MAGIC) as rude:
        device, host, silent, talks = [rude.says(rude.magic) for _ in range(4)]
        for connection in (device, host, silent, talks):
            assert recvall(connection, 4) == rude.magic
        assert asks(device, TrackerCode.UPDATE_INFO, {"key": "server:k", "addr": [None, 1]})
        sendjson(host, [TrackerCode.REQUEST, "other", "", 1])  # it waits, and so has no answer
        assert asks(host, TrackerCode.PING) and asks(silent, TrackerCode.PING) and asks(talks, TrackerCode.PING)
        more = rude.says(rude.magic)
        assert recvall(more, 4) == rude.magic and sent_away(silent)
        another = rude.says(rude.magic)
        assert recvall(another, 4) == rude.magic and sent_away(talks)
        assert all(asks(connection, TrackerCode.PING) for connection in (device, host, more, another))
        (line,) = lender.said
        assert line.startswith("127.0.0.1 was sent away: it has more than 4 connections")


def test_of_too_many_in_all_those_go_whose_address_has_most(lender, monkeypatch):
    monkeypatch.setattr(reception, "MOST", 4)
    with Rude(of(lender.address), RPC_TRACKER_MAGIC) as rude:
        honest = rude.says(rude.magic, "127.0.0.2")
        assert recvall(honest, 4) == rude.magic
        many = [rude.says(rude.magic, "127.0.0.3") for _ in range(3)]
        assert all(recvall(connection, 4) == rude.magic for connection in many)
        other = rude.says(rude.magic, "127.0.0.4")
        assert recvall(other, 4) == rude.magic and sent_away(many[0])
        assert all(asks(connection, TrackerCode.PING) for connection in (honest, other, *many[1:]))
        (line,) = lender.said
        assert line == "127.0.0.3 was sent away: there are more than 4 connections, and most of them are its"


# -- rude servers ----------------------------------------------------------------------------------------------------------
def frame(data: bytes) -> bytes:
    return struct.pack("<i", len(data)) + data


TRACKER, DEVICE = struct.pack("<i", RPC_TRACKER_MAGIC), struct.pack("<i", RPC_MAGIC)


@pytest.mark.parametrize(
    "words, says",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is neither a tracker nor a device"),
        (b"", "no tracker answers at"),
        (DEVICE + struct.pack("<i", 2**31 - 1), "no tracker answers at .*its answer makes no sense: 2147483647 bytes"),
        (DEVICE + frame(b'{"key": "k"}'), "is neither a tracker nor a device"),
        (DEVICE + frame(b"7"), "is neither a tracker nor a device"),
        (TRACKER + frame(b"[6]"), "does not answer any more .its answer makes no sense"),
        (TRACKER + frame(b'[0, {"queue_info": {}, "server_info": [5]}]'), "its answer makes no sense"),
        (TRACKER + frame(b"\xff"), "its answer makes no sense"),
        (TRACKER + frame(b"[" * 100000), "its answer makes no sense"),
    ],
)
def test_a_server_that_makes_no_sense_is_one_line(words, says):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # it need not listen to the end
                connection.sendall(words)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        serves = threading.Thread(target=serve)
        serves.start()
        with pytest.raises(TargetError, match=says) as error:
            devices(of(server.getsockname()))
        assert "\n" not in str(error.value)
        serves.join()


def test_an_answer_that_drips_is_not_awaited_without_end(monkeypatch):
    monkeypatch.setattr(trackers, "ANSWER_SECONDS", 0.3)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):  # it need not listen to the end
                connection.sendall(TRACKER + struct.pack("<i", 1 << 20))
                while not ended.wait(0.01):
                    connection.sendall(b" ")

        serves = threading.Thread(target=serve)
        serves.start()
        try:
            with pytest.raises(TargetError, match="does not answer any more .timed out"):
                devices(of(server.getsockname()))
        finally:
            ended.set()
            serves.join()


def test_a_device_that_says_nonsense_of_itself_does_not_hide_the_others(lender, capsys):
    with Rude(of(lender.address), RPC_TRACKER_MAGIC) as rude:
        odd = rude.says(rude.magic)
        assert recvall(odd, 4) == rude.magic
        assert asks(odd, TrackerCode.UPDATE_INFO, {"key": "server:k", "addr": ["h", 1], "mpcompile": {"about": 5}})
        assert cli.main(["devices", "--tracker", of(lender.address)]) == 0
        assert "another server" in (said := capsys.readouterr().out) and "1 device, 0 free" in said
