"""Where clients come in: the listening socket, and the handshake of TVM's RPC."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mpcompile.errors import UsageError

MAGIC_SECONDS = 1.0
HANDSHAKE_SECONDS = 10.0
"""In all, however slowly the client's bytes come: meanwhile the server does nothing else."""
MOST_WAITING = 16
LONGEST_KEY = 4096
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
        found.listen(MOST_WAITING)
    except OSError as error:
        found.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; port 0 takes any that is free"
        ) from error
    return found


def _receive(connection: socket.socket, size: int, end: float) -> bytes:
    """Exactly `size` bytes, in however many pieces they come. Raises OSError where they are not all there when
    time.monotonic() is `end`."""
    found = b""
    while len(found) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(size - len(found))
        if not piece:
            raise ConnectionResetError
        found += piece
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
    """Listens on `host`:`port` for clients that ask for `key`; `report()` tells others what this is. Raises UsageError
    where it cannot."""

    def __init__(self, host: str, port: int, key: str, report: Callable[[], dict]):
        self.socket, self._key, self._report = listen(host, port), key, report
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        self._waiting: deque[tuple[socket.socket, str]] = deque()

    def hear(self) -> None:
        """Takes one connection. A client of a device waits for `enter`; whoever looks for a tracker is told at once
        that this is a device, and the report."""
        from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC, sendjson

        try:
            connection, peer = self.socket.accept()
        except OSError:
            return
        try:
            magic = struct.unpack("<i", _receive(connection, 4, time.monotonic() + MAGIC_SECONDS))[0]
            if magic == RPC_MAGIC and len(self._waiting) < MOST_WAITING:
                self._waiting.append((connection, str(peer[0])))
                return
            if magic == RPC_TRACKER_MAGIC:
                connection.settimeout(MAGIC_SECONDS)
                connection.sendall(struct.pack("<i", RPC_MAGIC))
                sendjson(connection, self._report())
        except OSError:
            pass
        connection.close()

    def enter(self, accepts: Callable[[str], bool]) -> Client | None:
        """The next waiting client whose key fits."""
        while self._waiting:
            connection, who = self._waiting.popleft()
            try:
                fits, seconds = (False, None) if _hung_up(connection) else self._handshake(connection, accepts)
            except (OSError, ValueError):
                fits, seconds = False, None
            if fits:
                connection.settimeout(None)
                return Client(connection, who, seconds)
            connection.close()
        return None

    def _handshake(self, connection: socket.socket, accepts: Callable[[str], bool]) -> tuple[bool, float | None]:
        """What follows the magic number that `hear` took."""
        from tvm.rpc.base import RPC_CODE_MISMATCH, RPC_CODE_SUCCESS

        end = time.monotonic() + HANDSHAKE_SECONDS
        length = struct.unpack("<i", _receive(connection, 4, end))[0]
        if not 0 < length < LONGEST_KEY:
            return False, None
        role, _, rest = _receive(connection, length, end).decode().partition(":")
        key, *options = rest.split() or [""]
        if role != "client" or not accepts(key):
            connection.sendall(struct.pack("<i", RPC_CODE_MISMATCH))
            return False, None
        name = f"server:{self._key}".encode()
        keep_alive(connection)
        connection.sendall(struct.pack("<ii", RPC_CODE_SUCCESS, len(name)) + name)
        asked = [float(o.removeprefix("-timeout=")) for o in options if o.startswith("-timeout=")]
        return True, min(asked, default=None)

    def close(self) -> None:
        self.socket.close()
        while self._waiting:
            self._waiting.pop()[0].close()
