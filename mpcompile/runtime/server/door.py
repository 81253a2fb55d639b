"""Where clients come in: the listening socket, and the handshake of TVM's RPC."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mpcompile.errors import UsageError
from mpcompile.runtime.server.reception import MOST, Guest, Reception, SentAway, within

HANDSHAKE_SECONDS = 5.0
"""In all, however slowly the client's bytes come."""
MOST_WAITING = 16
"""Clients of one address that wait for their turn."""
LOOK_SECONDS = 1.0
"""Between two looks whether a client that waits has hung up."""
LONGEST_KEY = 4096
FIRST_WORDS, INIT_SERVER, LONGEST_FIRST = struct.Struct("<QI"), 2, 1 << 16
"""A session of TVM's RPC begins with the length of a packet, and with kInitServer in it."""
KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 4),
    (socket.TCP_USER_TIMEOUT, 30000),
)


def keep_alive(connection: socket.socket) -> None:
    """A peer that vanishes without a word (power, cable) is noticed within half a minute."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 for any that is free. Raises UsageError where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}: {error.strerror or error}") from error
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        found.listen(MOST)
    except OSError as error:
        found.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; port 0 takes any that is free"
        ) from error
    return found


def _hung_up(connection: socket.socket) -> bool:
    """Whether the client did not want to wait so long."""
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poller.poll(0))


@dataclass(frozen=True)
class Client:
    """Who came in: the connection, its address, and the seconds that it asked for (-timeout=), if any."""

    connection: socket.socket
    address: str
    seconds: float | None


class Door:
    """Listens on `host`:`port` for clients that ask for `key`; `report()` tells others what this is, `log(line)` takes
    lines for people. Raises UsageError where it cannot.

    It shakes hands on a thread of its own, with all who come at once. `bell` becomes readable when somebody may come in.
    """

    def __init__(
        self,
        host: str,
        port: int,
        key: str,
        report: Callable[[], dict],
        log: Callable[[str], None] = lambda line: None,
    ):
        listening = listen(host, port)
        self.address: tuple[str, int] = listening.getsockname()[:2]
        self._key, self._report, self._accepts = key, report, key.__eq__
        self._reception = Reception(listening, self._attend, log)
        self._thread = threading.Thread(target=self._reception.run, daemon=True, name="mpcompile-door")
        self.bell, self._rope = socket.socketpair()
        for end in (self.bell, self._rope):
            end.setblocking(False)
        self._lock = threading.Lock()
        self._waiting: dict[Guest, float | None] = {}
        """Who has shaken hands, first come first, and the seconds that each asked for."""

    def open(self, accepts: Callable[[str], bool]) -> None:
        """Lets clients in whose key `accepts` takes, which another thread asks."""
        self._accepts = accepts
        self._thread.start()

    def enter(self) -> Client | None:
        """The client that has waited for longest, its connection blocking."""
        try:
            self.bell.recv(1 << 16)
        except BlockingIOError:
            pass
        with self._lock:
            while self._waiting:
                guest = next(iter(self._waiting))
                seconds = self._waiting.pop(guest)
                if _hung_up(guest.connection):
                    continue
                try:
                    connection = guest.connection.dup()  # the reception closes its own
                except OSError:  # no descriptor is left: the next may find one
                    continue
                connection.setblocking(True)
                return Client(connection, guest.address, seconds)
        return None

    def close(self) -> None:
        if self._thread.is_alive():
            self._reception.stop()
            self._thread.join()
        self._reception.close()
        self.bell.close()
        self._rope.close()

    # -- on the door's thread ---------------------------------------------------------------------------
    async def _attend(self, guest: Guest) -> None:
        """A client of a device waits for `enter`; whoever looks for a tracker is told at once that this is a device,
        and the report."""
        from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC

        async with within(HANDSHAKE_SECONDS, f"its handshake takes more than {HANDSHAKE_SECONDS:g} s"):
            magic = struct.unpack("<i", await guest.receive(4))[0]
            if magic == RPC_TRACKER_MAGIC:
                report = json.dumps(self._report()).encode()
                return await guest.send(struct.pack("<ii", RPC_MAGIC, len(report)) + report)
            if magic != RPC_MAGIC:
                raise SentAway("it does not speak TVM's RPC")
            fits, seconds = await self._handshake(guest)
            if not fits:
                return None
            await self._begins(guest)
        return await self._wait(guest, seconds)

    async def _handshake(self, guest: Guest) -> tuple[bool, float | None]:
        """What follows the magic number."""
        from tvm.rpc.base import RPC_CODE_MISMATCH, RPC_CODE_SUCCESS

        length = struct.unpack("<i", await guest.receive(4))[0]
        if not 0 < length < LONGEST_KEY:
            raise SentAway("its key has a length that none has")
        try:
            role, _, rest = (await guest.receive(length)).decode().partition(":")
            key, *options = rest.split() or [""]
            asked = [float(o.removeprefix("-timeout=")) for o in options if o.startswith("-timeout=")]
        except ValueError:
            raise SentAway("its key makes no sense") from None
        if role != "client" or not self._accepts(key):
            await guest.send(struct.pack("<i", RPC_CODE_MISMATCH))
            return False, None
        name = f"server:{self._key}".encode()
        keep_alive(guest.connection)
        await guest.send(struct.pack("<ii", RPC_CODE_SUCCESS, len(name)) + name)
        return True, min(asked, default=None)

    async def _begins(self, guest: Guest) -> None:
        """Returns when the first words of a session are there, which stay unread: TVM's clients say them at once, and
        somebody who says nothing shall not have the device."""
        connection, loop = guest.connection, asyncio.get_running_loop()
        readable = loop.create_future()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, FIRST_WORDS.size)
        loop.add_reader(connection, lambda: readable.done() or readable.set_result(None))
        try:
            await readable
        finally:
            loop.remove_reader(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        words = connection.recv(FIRST_WORDS.size, socket.MSG_PEEK)
        if len(words) < FIRST_WORDS.size:
            raise ConnectionResetError
        length, code = FIRST_WORDS.unpack(words)
        if length > LONGEST_FIRST or code != INIT_SERVER:
            raise SentAway("it begins no session of TVM's RPC")

    async def _wait(self, guest: Guest, seconds: float | None) -> None:
        """For its turn, or until it hangs up."""
        with self._lock:
            if sum(other.address == guest.address for other in self._waiting) >= MOST_WAITING:
                raise SentAway(f"{MOST_WAITING} of its clients wait already")
            self._waiting[guest] = seconds
        guest.holds = lambda: True
        try:
            self._ring()
            while guest in self._waiting and not _hung_up(guest.connection):
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            with self._lock:
                self._waiting.pop(guest, None)

    def _ring(self) -> None:
        try:
            self._rope.send(b"x")
        except BlockingIOError:  # it rings already
            pass
