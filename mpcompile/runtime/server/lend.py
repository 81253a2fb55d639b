"""A tracker that speaks the protocol of TVM's: it lends devices by key, to whoever asked first.

After both have said RPC_TRACKER_MAGIC a message is its length (int32) and JSON, a list that begins with a code of
tvm.rpc.base.TrackerCode; each has an answer. TVM's own tracker is not what runs here: it prints a traceback at a wrong
number or word, and one client can make it useless for all others.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable

import msgspec

from mpcompile.runtime.server.door import HANDSHAKE_SECONDS, keep_alive, listen
from mpcompile.runtime.server.lending import Lending, Member, TooMany
from mpcompile.runtime.server.reception import Guest, Reception, SentAway, within

MESSAGE_SECONDS = 5.0
"""In which a message that has begun is there, and its answer on its way."""
LONGEST_MESSAGE = 1 << 16
"""Bytes."""


class Ping(msgspec.Struct, array_like=True, tag=1):
    pass


class Stop(msgspec.Struct, array_like=True, tag=2):
    """Which this tracker refuses: it is ended by who started it."""


class Put(msgspec.Struct, array_like=True, tag=3):
    """`host`: None for where the message came from."""

    key: str
    where: tuple[int, str]
    host: str | None = None


class Request(msgspec.Struct, array_like=True, tag=4):
    key: str
    user: str
    priority: int


class Info(msgspec.Struct):
    key: str
    addr: tuple[str | None, int]
    mpcompile: dict = {}


class UpdateInfo(msgspec.Struct, array_like=True, tag=5):
    info: Info


class Summary(msgspec.Struct, array_like=True, tag=6):
    pass


class PendingMatchKeys(msgspec.Struct, array_like=True, tag=7):
    pass


Message = Ping | Stop | Put | Request | UpdateInfo | Summary | PendingMatchKeys


class Lender:
    """Listens on `host`:`port`. Raises UsageError where it cannot. `log(line)` takes lines for people."""

    def __init__(self, host: str, port: int, log: Callable[[str], None] = lambda line: None):
        import tvm.rpc.base  # noqa: F401  seconds, in which nobody would be heard

        listening = listen(host, port)
        keep_alive(listening)  # connections inherit it: a device whose power fails is forgotten
        self.address: tuple[str, int] = listening.getsockname()[:2]
        self._lending = Lending()
        self._reception = Reception(listening, self._attend, log)

    def run(self) -> None:
        """Until stop()."""
        self._reception.run()

    def stop(self) -> None:
        """Makes run return; from a signal handler."""
        self._reception.stop()

    async def _attend(self, guest: Guest) -> None:
        from tvm.rpc.base import RPC_TRACKER_MAGIC, TrackerCode

        reader, writer = await asyncio.open_connection(sock=guest.connection)
        member = Member(lambda where: writer.write(_frame([TrackerCode.SUCCESS, where])))
        guest.holds = member.holds
        try:
            async with within(HANDSHAKE_SECONDS, f"its handshake takes more than {HANDSHAKE_SECONDS:g} s"):
                magic = struct.pack("<i", RPC_TRACKER_MAGIC)
                if await reader.readexactly(4) != magic:
                    raise SentAway("it does not speak the protocol of TVM's tracker")
                writer.write(magic)
            while True:
                first = await reader.readexactly(1)  # a host may think for hours about what to ask for
                async with within(MESSAGE_SECONDS, f"a message or its answer takes more than {MESSAGE_SECONDS:g} s"):
                    self._answer(member, guest, await _message(first, reader), writer)
                    await writer.drain()
                guest.spoke()
                await asyncio.sleep(0)  # one that has much to say shall not keep others waiting
        finally:
            self._lending.leave(member)
            writer.transport.abort()

    def _answer(self, member: Member, guest: Guest, message: Message, writer: asyncio.StreamWriter) -> None:
        from tvm.rpc.base import TrackerCode

        answer: object = TrackerCode.SUCCESS
        match message:
            case Put(key, (port, match_key), host):
                self._lending.offer(member, key, (host or guest.address, port, match_key))
            case UpdateInfo(info):
                host, port = info.addr
                addr = [host or guest.address, port]
                self._lending.register(member, {"key": info.key, "addr": addr, "mpcompile": info.mpcompile})
            case Request(key, _, priority):
                try:
                    return self._lending.request(member, key, priority)
                except TooMany:
                    raise SentAway("it waits for too many devices") from None
            case Summary():
                answer = [TrackerCode.SUCCESS, self._lending.summary()]
            case PendingMatchKeys():
                answer = list(member.offers)
            case Stop():
                answer = TrackerCode.FAIL
        writer.write(_frame(answer))


def _frame(message: object) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack("<i", len(data)) + data


async def _message(first: bytes, reader: asyncio.StreamReader) -> Message:
    """The message whose first byte this is."""
    size = struct.unpack("<i", first + await reader.readexactly(3))[0]
    if not 0 < size <= LONGEST_MESSAGE:
        raise SentAway("it announces a message of a length that none has")
    try:
        return msgspec.json.decode(await reader.readexactly(size), type=Message)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise SentAway("a message of its makes no sense") from None
