"""The tracker: who is lent what, counted by hand, and messages that make no sense."""

import json
import socket
import struct
import threading

import pytest
from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode, recvall, recvjson, sendjson

from mpcompile.runtime.server import lend
from mpcompile.runtime.server.lend import LONGEST_MESSAGE, Lender
from mpcompile.runtime.server.lending import MOST_ASKED, MOST_OFFERS, Lending, Member, TooMany
from tests.patience import SOON, until
from tests.remote.test_door import sent_away

MAGIC = struct.pack("<i", RPC_TRACKER_MAGIC)


class Host(Member):
    def __init__(self):
        self.got = []
        super().__init__(self.got.append)


def where(match_key: str) -> tuple[str, int, str]:
    return "h", 1, match_key


def test_who_asked_first_is_lent_first_unless_another_has_priority():
    lending, device, first, second, urgent = Lending(), Host(), Host(), Host(), Host()
    lending.request(first, "k", 1)
    lending.request(second, "k", 1)
    lending.request(urgent, "k", 2)
    lending.request(first, "other", 9)
    assert lending.summary()["queue_info"] == {"k": {"free": 0, "pending": 3}, "other": {"free": 0, "pending": 1}}
    for match_key in "abcd":
        lending.offer(device, "k", where(match_key))
    assert (urgent.got, first.got, second.got) == ([where("a")], [where("b")], [where("c")])
    assert list(device.offers) == ["d"] and first.asked == 1 and first.holds() and not second.holds()
    assert lending.summary()["queue_info"] == {"k": {"free": 1, "pending": 0}, "other": {"free": 0, "pending": 1}}
    lending.request(second, "k", 0)
    assert second.got == [where("c"), where("d")] and not device.holds()
    lending.leave(first)
    assert lending.summary() == {"queue_info": {}, "server_info": []}


def test_what_somebody_offered_and_asked_for_goes_with_it():
    lending, device, other, host, waits = Lending(), Host(), Host(), Host(), Host()
    lending.register(device, {"key": "server:k", "addr": ["h", 1]})
    lending.register(host, {"key": "client:k", "addr": ["h", 1]})
    assert lending.summary() == {"queue_info": {"k": {"free": 0, "pending": 0}}, "server_info": [device.info]}
    lending.offer(device, "k", where("a"))
    lending.offer(device, "k", where("b"))
    lending.offer(other, "k", where("c"))
    lending.leave(device)
    assert lending.summary() == {"queue_info": {"k": {"free": 1, "pending": 0}}, "server_info": []}
    lending.request(host, "k", 1)
    assert host.got == [where("c")]
    lending.request(host, "k", 1)
    lending.request(waits, "k", 1)
    lending.leave(host)
    lending.offer(other, "k", where("d"))
    assert waits.got == [where("d")] and host.got == [where("c")]


def test_of_one_member_so_many_offers_and_requests_and_no_more():
    lending, device, host = Lending(), Host(), Host()
    for number in range(MOST_OFFERS + 1):
        lending.offer(device, "k", where(str(number)))
    lending.offer(device, "k", where("5"))  # again: it is the last now
    assert lending.summary()["queue_info"]["k"]["free"] == len(device.offers) == MOST_OFFERS
    lending.request(host, "k", 1)
    assert host.got == [where("1")]
    assert list(device.offers)[-1] == "5" and "0" not in device.offers
    for _ in range(MOST_ASKED):
        lending.request(host, "other", 1)
    with pytest.raises(TooMany):
        lending.request(host, "other", 1)


# -- over a real socket ----------------------------------------------------------------------------------------------------
@pytest.fixture
def lender():
    said: list[str] = []
    found = Lender("127.0.0.1", 0, said.append)
    found.said = said
    runs = threading.Thread(target=found.run)
    runs.start()
    yield found
    found.stop()
    runs.join()


def member(lender: Lender) -> socket.socket:
    found = socket.create_connection(lender.address, SOON)
    found.sendall(MAGIC)
    assert recvall(found, 4) == MAGIC
    return found


def asks(connection: socket.socket, *message):
    sendjson(connection, list(message))
    return recvjson(connection)


def text(*message) -> bytes:
    return json.dumps(message).encode()


DEVICE = {"key": "server:k", "addr": [None, 7], "mpcompile": {"free": True}}


@pytest.mark.parametrize(
    "message",
    [
        b"\xff",
        b"[]",
        b"{}",
        b"[6",
        b"[" * 40000,
        text(99),
        text(TrackerCode.SUCCESS),
        text(TrackerCode.PUT, "k", ["port", "key"]),
        text(TrackerCode.PUT, 5, [1, "key"]),
        text(TrackerCode.PUT, "k", [1, "key"], 5),
        text(TrackerCode.REQUEST, "k"),
        text(TrackerCode.REQUEST, "k", "", "first"),
        text(TrackerCode.UPDATE_INFO, {"key": 5, "addr": [None, 1]}),
        text(TrackerCode.UPDATE_INFO, {"key": "server:k"}),
        text(TrackerCode.UPDATE_INFO, []),
    ],
)
def test_a_message_that_makes_no_sense_costs_its_sender_alone(lender, message):
    with member(lender) as device, member(lender) as rude:
        assert asks(device, TrackerCode.UPDATE_INFO, DEVICE) == TrackerCode.SUCCESS
        assert asks(device, TrackerCode.PUT, "k", [7, "match"], None) == TrackerCode.SUCCESS
        rude.sendall(struct.pack("<i", len(message)) + message)
        assert sent_away(rude)
        assert lender.said == ["127.0.0.1 was sent away: a message of its makes no sense"]
        assert asks(device, TrackerCode.SUMMARY) == [
            TrackerCode.SUCCESS,
            {"queue_info": {"k": {"free": 1, "pending": 0}}, "server_info": [DEVICE | {"addr": ["127.0.0.1", 7]}]},
        ]


@pytest.mark.parametrize("length", [0, -1, LONGEST_MESSAGE + 1])
def test_a_length_that_none_has(lender, length):
    with member(lender) as rude:
        rude.sendall(struct.pack("<i", length))
        assert sent_away(rude)
        assert lender.said == ["127.0.0.1 was sent away: it announces a message of a length that none has"]


def test_a_message_that_comes_in_pieces_and_a_request_that_waits(lender):
    with member(lender) as device, member(lender) as host, member(lender) as gone:
        sendjson(gone, [TrackerCode.REQUEST, "k", "", 9])
        until(lambda: asks(device, TrackerCode.SUMMARY)[1]["queue_info"] == {"k": {"free": 0, "pending": 1}})
        message = text(TrackerCode.REQUEST, "k", "somebody", 1)
        host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in struct.pack("<i", len(message)) + message:
            host.sendall(bytes([byte]))
        assert asks(host, TrackerCode.PING) == TrackerCode.SUCCESS  # while it waits
        gone.close()
        until(lambda: asks(device, TrackerCode.SUMMARY)[1]["queue_info"] == {"k": {"free": 0, "pending": 1}})
        assert asks(device, TrackerCode.PUT, "k", [7, "k:1"], "there") == TrackerCode.SUCCESS
        assert recvjson(host) == [TrackerCode.SUCCESS, ["there", 7, "k:1"]]
        assert asks(device, TrackerCode.GET_PENDING_MATCHKEYS) == []
        assert asks(device, TrackerCode.PUT, "k", [7, "k:2"]) == TrackerCode.SUCCESS
        assert asks(device, TrackerCode.GET_PENDING_MATCHKEYS) == ["k:2"]
        assert asks(host, TrackerCode.REQUEST, "k", "", 1) == [TrackerCode.SUCCESS, ["127.0.0.1", 7, "k:2"]]
        assert asks(host, TrackerCode.STOP, "key") == TrackerCode.FAIL and asks(host, TrackerCode.PING) == 0
    assert lender.said == []


@pytest.mark.parametrize("words", [b"\x05", struct.pack("<i", 5) + b"[6"])
def test_a_message_that_does_not_end(lender, monkeypatch, words):
    monkeypatch.setattr(lend, "MESSAGE_SECONDS", 0.1)
    with member(lender) as idle, member(lender) as rude:
        rude.sendall(words)
        assert sent_away(rude) and len(lender.said) == 1 and "a message or its answer takes more than" in lender.said[0]
        monkeypatch.setattr(lend, "MESSAGE_SECONDS", SOON)
        assert asks(idle, TrackerCode.PING) == TrackerCode.SUCCESS


def test_one_that_asks_and_never_reads(lender, monkeypatch):
    """Its answers are not kept for it without end."""
    with member(lender) as device, member(lender) as rude:
        assert asks(device, TrackerCode.UPDATE_INFO, DEVICE | {"mpcompile": {"long": "x" * 50000}}) == 0
        monkeypatch.setattr(lend, "MESSAGE_SECONDS", 0.5)
        question = text(TrackerCode.SUMMARY)
        with pytest.raises(OSError):
            while True:
                rude.sendall(struct.pack("<i", len(question)) + question)
        until(lambda: lender.said)
        assert "a message or its answer takes more than" in lender.said[0]
        monkeypatch.setattr(lend, "MESSAGE_SECONDS", SOON)
        assert asks(device, TrackerCode.PING) == TrackerCode.SUCCESS
