"""TVM's tracker as a host sees it: who is there, and a device that is free.

Where a device is served without a tracker, its own address stands for one.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import msgspec

from mpcompile.errors import TargetError, UsageError
from mpcompile.remote.connection import RemoteDevice
from mpcompile.runtime.device import About
from mpcompile.runtime.server.tracker import NotATracker, ask, connect_tracker
from mpcompile.runtime.state import State

TRACKER_SECONDS = 4.0
"""Seconds to connect to a tracker."""
ANSWER_SECONDS = 30.0
"""Seconds that a tracker has to answer."""
GRANT_SECONDS = 3.0
"""Seconds that the tracker has to lend a device that it just called free."""
PORT = 9190


def parse_address(text: str, default: int = PORT) -> tuple[str, int]:
    """ "HOST:PORT", "HOST", "[IPV6]:PORT" → (host, port). Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default)
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is no HOST:PORT")
    return host.strip("[]"), int(port)


class Told(msgspec.Struct):
    """What `mpcompile serve` says of itself."""

    about: About
    state: State
    free: bool
    seconds: float
    client: str


class Alone(Told):
    """Where it is served without a tracker."""

    key: str


class Entry(msgspec.Struct):
    """What a tracker says of a device."""

    key: str
    addr: tuple[str, int]
    mpcompile: Any = None


class Queue(msgspec.Struct):
    free: int


class Summary(msgspec.Struct):
    """What a tracker says of all."""

    queue_info: dict[str, Queue]
    server_info: list[Entry]


@dataclass(frozen=True)
class Listed:
    """A device as its tracker knows it. `told`: what `mpcompile serve` says of itself; empty for TVM's own servers, and
    where it is not what this mpcompile understands."""

    key: str
    address: tuple[str, int]
    told: dict


class Key:
    """The devices of a key at a tracker "HOST:PORT", as a pool's source."""

    def __init__(self, tracker: str, key: str):
        self.tracker, self.key = parse_address(tracker), key
        self.name = f"{key} at {self.tracker[0]}:{self.tracker[1]}"

    def take(self) -> RemoteDevice | None:
        """A device that is free now; None where all are busy. Raises TargetError where there is no such tracker or key,
        or none of the free devices can be reached."""
        try:
            with _connected(self.tracker) as connection:
                return self._borrow(connection)
        except NotATracker as error:
            device = _alone(error, self.tracker)
        if self.key != device["key"]:
            raise TargetError(
                f"{_text(self.tracker)} is no tracker but a device of key {device['key']}, not {self.key}"
            )
        if not device["free"]:
            return None
        return RemoteDevice(self.tracker, self.key, self.name)

    def _borrow(self, connection: socket.socket) -> RemoteDevice | None:
        from tvm.rpc.base import TrackerCode

        summary = _summary(connection, self.tracker)
        keys = sorted({d.key for d in _listed(summary)})
        if self.key not in keys:
            there = f"it has {', '.join(keys)}" if keys else "it has none at all"
            raise TargetError(f"the tracker {_text(self.tracker)} has no device of key {self.key}: {there}")
        failed: TargetError | None = None
        for _ in range(queue.free if (queue := summary.queue_info.get(self.key)) else 0):
            connection.settimeout(GRANT_SECONDS)
            try:
                _, (host, port, match_key) = ask(
                    connection, [TrackerCode.REQUEST, self.key, "", 1], tuple[int, tuple[str, int, str]]
                )
            except TimeoutError:
                break
            except OSError as error:
                raise _gone(self.tracker, error) from None
            try:
                return RemoteDevice((host, port), match_key, f"{self.key} at {host}:{port}")
            except TargetError as error:
                failed = error
        if failed:
            raise failed
        return None


def devices(tracker: str) -> list[Listed]:
    """All devices that a tracker knows, or the one that is served there without. Raises TargetError, within seconds,
    where there is neither."""
    address = parse_address(tracker)
    try:
        with _connected(address) as connection:
            return _listed(_summary(connection, address))
    except NotATracker as error:
        device = _alone(error, address)
        return [Listed(device.pop("key"), address, device)]


def _alone(error: NotATracker, address: tuple[str, int]) -> dict:
    """What a device without a tracker says of itself. Raises TargetError where it is none."""
    if not isinstance(error.device, dict) or not _fits(error.device, Alone):
        raise TargetError(f"{_text(address)} is neither a tracker nor a device") from None
    return dict(error.device)


def _connected(address: tuple[str, int]) -> socket.socket:
    """Raises TargetError where nobody answers: a tracker's machine, a device's, or what leads to it (a tunnel)."""
    try:
        found = connect_tracker(address, TRACKER_SECONDS)
        found.settimeout(ANSWER_SECONDS)
        return found
    except NotATracker:
        raise
    except OSError as error:
        raise TargetError(
            f"no tracker answers at {_text(address)}, and no device ({error.strerror or error}): start "
            "`mpcompile tracker` there, or `mpcompile serve`; if one runs there, the way to it is cut"
        ) from None


def _fits(told: Any, kind: type) -> bool:
    try:
        msgspec.convert(told, kind)
    except msgspec.ValidationError:
        return False
    return True


def _summary(connection: socket.socket, address: tuple[str, int]) -> Summary:
    from tvm.rpc.base import TrackerCode

    try:
        return ask(connection, [TrackerCode.SUMMARY], tuple[int, Summary])[1]
    except OSError as error:
        raise _gone(address, error) from None


def _listed(summary: Summary) -> list[Listed]:
    rows = [
        Listed(d.key.partition(":")[2], d.addr, d.mpcompile if _fits(d.mpcompile, Told) else {})
        for d in summary.server_info
    ]
    return sorted(rows, key=lambda d: (d.key, d.address))


def _gone(address: tuple[str, int], error: OSError) -> TargetError:
    return TargetError(f"the tracker {_text(address)} does not answer any more ({error.strerror or error})")


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"
