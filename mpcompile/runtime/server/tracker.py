"""A device's entry in TVM's tracker: kept up to date, and made again when the tracker comes back.

It runs on a thread of its own, so that a tracker that does not answer holds up nothing else.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

PING = 2.0
"""Seconds between two questions whether the key that was put is still there."""
RETRY = 1.0
TOLD = 10.0
"""Seconds between two reports of a device that is free, or busy."""
UNUSED = 6.0
"""Seconds after which a key that was taken and not used is replaced, as TVM's own server does."""
ANSWER = 10.0
"""Seconds that a tracker has to answer."""
LONGEST_ANSWER = 1 << 26
"""Bytes: what as many devices say of themselves as a tracker bears."""


class TrackerEntry(threading.Thread):
    """`report()` gives what UPDATE_INFO shows beside key and address; `log(line)` takes lines for people."""

    def __init__(
        self,
        tracker: tuple[str, int],
        key: str,
        port: int,
        announce: str | None,
        report: Callable[[], dict],
        log: Callable[[str], None],
    ):
        super().__init__(daemon=True, name="mpcompile-tracker")
        self._tracker, self._key, self._port, self._announce = tracker, key, port, announce
        self._report, self._log = report, log
        self._changed = threading.Condition()
        self._free = self._told = self._stopped = False
        self._keys: list[str] = []
        """Match keys that a client may bring; the last was put last."""
        self._lost = self._known = False
        self._since = time.monotonic()

    def set_free(self, free: bool) -> None:
        """Whether the tracker may lend the device."""
        with self._changed:
            self._free, self._told = free, False
            self._since = time.monotonic()
            if not free:
                self._keys.clear()
            self._changed.notify_all()

    def accepts(self, key: str) -> bool:
        with self._changed:
            return key in self._keys

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.join(ANSWER + 1)

    def run(self) -> None:
        while not self._stopped:
            connection = None
            try:
                connection = self._connect()
                self._keep(connection)
            except OSError as error:
                if not self._lost and not self._stopped:
                    self._log(f"tracker {self._where()}: {error.strerror or error}; trying again until it is back")
                self._lost = True
            finally:
                if connection is not None:
                    connection.close()
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, RETRY)

    def _where(self) -> str:
        return f"{self._tracker[0]}:{self._tracker[1]}"

    def _is_registered(self) -> None:
        """Says so for the first time, and where it had not been any more."""
        if self._lost or not self._known:
            self._log(f"tracker {self._where()}: registered{' again' if self._known else ''}")
        self._lost, self._known = False, True

    def _connect(self) -> socket.socket:
        connection = connect_tracker(self._tracker, ANSWER)
        with self._changed:
            self._keys, self._told = [], False
        return connection

    def _keep(self, connection: socket.socket) -> None:
        """Until the connection breaks, by an OSError, or stop."""
        from tvm.rpc.base import TrackerCode, random_key

        told_at, put, taken = 0.0, "", None
        while True:
            with self._changed:
                if self._stopped:
                    return
                free, told = self._free, self._told
                self._told = True
            now = time.monotonic()
            if not told or now > told_at + TOLD:
                seconds = round(now - self._since, 1)
                info = {
                    "key": f"server:{self._key}",
                    "addr": [self._announce, self._port],
                    "mpcompile": {"free": free, "seconds": seconds, **self._report()},
                }
                ask(connection, [TrackerCode.UPDATE_INFO, info])
                told_at = now
                self._is_registered()
            if not free:
                put = ""
            elif put and put in ask(connection, [TrackerCode.GET_PENDING_MATCHKEYS], list):
                taken = None
            elif put and taken is None:
                taken = now
            elif not put or taken is None or now > taken + UNUSED:
                put, taken = random_key(self._key), None
                with self._changed:
                    if self._free:
                        self._keys.append(put)
                ask(connection, [TrackerCode.PUT, self._key, [self._port, put], self._announce])
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or not self._told, PING)


def receive(connection: socket.socket, size: int, end: float) -> bytes:
    """Exactly `size` bytes, in however many pieces they come. Raises OSError where they are not all there when
    time.monotonic() is `end`."""
    found = bytearray()
    while len(found) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        piece = connection.recv(min(size - len(found), 1 << 16))
        if not piece:
            raise ConnectionResetError("the connection was closed")
        found += piece
    return bytes(found)


def receive_json(connection: socket.socket, end: float):
    """As `receive`; OSError where it makes no sense, too."""
    size = struct.unpack("<i", receive(connection, 4, end))[0]
    if not 0 < size <= LONGEST_ANSWER:
        raise OSError(f"its answer makes no sense: {size} bytes")
    try:
        return json.loads(receive(connection, size, end))
    except (ValueError, RecursionError) as error:
        raise OSError(f"its answer makes no sense: {type(error).__name__}") from error


def connect_tracker(address: tuple[str, int], seconds: float) -> socket.socket:
    """A connection to a TVM tracker, made within `seconds`. Raises OSError where there is none, or something else."""
    from tvm.rpc.base import RPC_MAGIC, RPC_TRACKER_MAGIC

    connection = socket.create_connection(address, seconds)
    try:
        connection.settimeout(ANSWER)
        connection.sendall(struct.pack("<i", RPC_TRACKER_MAGIC))
        end = time.monotonic() + ANSWER
        found = struct.unpack("<i", receive(connection, 4, end))[0]
        if found != RPC_TRACKER_MAGIC:
            raise NotATracker(receive_json(connection, end) if found == RPC_MAGIC else None)
        connection.settimeout(ANSWER)
    except BaseException:
        connection.close()
        raise
    return connection


class NotATracker(OSError):
    """Something else listens there. `device`: what a device that is served without a tracker says of itself."""

    def __init__(self, device: dict | None):
        super().__init__("it is no TVM tracker")
        self.device = device


def ask(connection: socket.socket, question: list, kind: Any = Any) -> Any:
    """A tracker's answer, as a `kind`, which msgspec knows. Raises OSError where the tracker is gone, the answer is not
    there, all of it, within the connection's timeout, or makes no sense."""
    from tvm.rpc.base import sendjson

    seconds = connection.gettimeout() or ANSWER
    sendjson(connection, question)
    try:
        return msgspec.convert(receive_json(connection, time.monotonic() + seconds), kind)
    except msgspec.ValidationError as error:
        raise OSError(f"its answer makes no sense: {error}") from error
    finally:
        connection.settimeout(seconds)
