"""A device behind TVM's RPC, with the methods of runtime/device.py. It encodes; the device measures."""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mpcompile import __version__
from mpcompile.errors import DeviceLost, TargetError, UsageError
from mpcompile.latency.measure import Measurement
from mpcompile.latency.onnxruntime import self_contained
from mpcompile.latency.progress import Progress
from mpcompile.runtime.archive import tvm_version
from mpcompile.runtime.device import About, Kernel
from mpcompile.runtime.server.door import keep_alive
from mpcompile.runtime.server.wire import FUNCTIONS, LOST, PIECE, PROTOCOL, Blobs, array_of, error_of, kernel_to_json
from mpcompile.runtime.state import State

CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 60
"""A device that answers nothing for so long is lost; whatever takes long is asked for again and again (wait)."""
ASK_SECONDS = 1.0


class RemoteDevice:
    """A session on a device. `limit`: seconds that one call may take; None: what the device allows.

    Each method raises what it raises on the device, by one line that begins with `name`, and DeviceLost where the
    device ended the session or went away: then the object is of no more use.
    """

    def __init__(
        self,
        address: tuple[str, int],
        match_key: str,
        name: str,
        limit: float | None = None,
        seconds: float = CONNECT_SECONDS,
    ):
        """Connects. Raises TargetError within about `seconds` where that fails, or where versions do not fit."""
        self.name, self.limit = name, limit
        self.address = address
        self._there: set[str] = set()
        self._lost: DeviceLost | None = None
        self._functions: dict = {}
        self._session: Any  # TVM's; None when it is over
        self._session, self._sockets = _connect(address, match_key, name, seconds)
        try:
            greeting = self._greeting()
            self.about = About.from_json(greeting["about"])
            self.limits: dict[str, float] = greeting["limits"]
        except BaseException:
            self.close()
            raise

    # -- Device ---------------------------------------------------------------------------------------
    def time_kernels(
        self,
        kernels: Mapping[str, Kernel],
        threads: int,
        *,
        stirred: int,
        rounds: int,
        min_time: float,
        progress: Progress | None = None,
    ) -> Measurement:
        blobs = Blobs()
        rows = {name: kernel_to_json(kernel, blobs) for name, kernel in kernels.items()}
        return Measurement.from_json(
            self._call(
                "time_kernels",
                {"kernels": rows, "threads": threads, "stirred": stirred, "rounds": rounds, "min_time": min_time},
                blobs,
                progress=progress,
            )
        )

    def race(
        self,
        files: Mapping[str, Path],
        threads: int,
        *,
        rounds: int,
        min_time: float,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> Measurement:
        blobs = Blobs()
        sent = {name: _file(path, blobs) for name, path in files.items()}
        return Measurement.from_json(
            self._call(
                "race",
                {"files": sent, "threads": threads, "rounds": rounds, "min_time": min_time, "variant": variant},
                blobs,
                sent.values(),
                progress,
            )
        )

    def profile(
        self,
        bundle: Path,
        threads: int,
        *,
        stirred: int,
        rounds: int,
        min_time: float,
        variant: str | None = None,
        progress: Progress | None = None,
    ) -> Measurement:
        blobs = Blobs()
        file = _file(bundle, blobs)
        return Measurement.from_json(
            self._call(
                "profile",
                {
                    "bundle": file,
                    "threads": threads,
                    "stirred": stirred,
                    "rounds": rounds,
                    "min_time": min_time,
                    "variant": variant,
                },
                blobs,
                [file],
                progress,
            )
        )

    def run(
        self, file: Path, inputs: Mapping[str, np.ndarray], threads: int, *, variant: str | None = None
    ) -> dict[str, np.ndarray]:
        blobs = Blobs()
        sent = _file(file, blobs)
        arrays = {name: blobs.add_array(np.asarray(x)) for name, x in inputs.items()}
        found = self._call(
            "run", {"file": sent, "inputs": arrays, "threads": threads, "variant": variant}, blobs, [sent]
        )
        return {name: self._array(d) for name, d in found.items()}

    def trace(
        self, bundle: Path, inputs: Mapping[str, np.ndarray], threads: int, *, variant: str | None = None
    ) -> dict[str, dict[str, np.ndarray]]:
        blobs = Blobs()
        sent = _file(bundle, blobs)
        arrays = {name: blobs.add_array(np.asarray(x)) for name, x in inputs.items()}
        found = self._call(
            "trace", {"bundle": sent, "inputs": arrays, "threads": threads, "variant": variant}, blobs, [sent]
        )
        return {tensor: {key: self._array(d) for key, d in buffers.items()} for tensor, buffers in found.items()}

    def reference(self) -> float:
        return self._call("reference", {}, Blobs())

    def state(self) -> State:
        return State.from_json(json.loads(self._ask("state")))

    @property
    def lost(self) -> bool:
        """Whether the session is over, by close() or otherwise."""
        return self._lost is not None

    def close(self) -> None:
        """Ends the session: the device is free again. May be called again."""
        self._lost = self._lost or DeviceLost(f"{self.name}: the session was closed")
        _hang_up(self._sockets)
        self._functions.clear()
        self._session = None

    def __enter__(self) -> RemoteDevice:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    # -- the wire -------------------------------------------------------------------------------------
    def _greeting(self) -> dict:
        # Looked up once: TVM's client drops the reason of a lost session where it comes as the answer to a look-up.
        try:
            self._functions = {name: self._session.get_function(f"mpcompile.{name}") for name in FUNCTIONS}
        except AttributeError as error:
            raise TargetError(
                f"{self.name} is TVM's own RPC server, not mpcompile's: start `mpcompile serve` there"
            ) from error
        except Exception as error:
            raise _lost(self.name, str(error)) from None
        greeting = json.loads(self._ask("about"))
        there, here = greeting["about"], (__version__, tvm_version())
        if greeting["protocol"] != PROTOCOL or any(
            _minor(a) != _minor(b) for a, b in zip((there["mpcompile"], there["tvm"]), here)
        ):
            raise TargetError(
                f"{self.name} has mpcompile {there['mpcompile']} and TVM {there['tvm']}, this machine "
                f"mpcompile {here[0]} and TVM {here[1]}: install the same on both"
            )
        return greeting

    def _call(self, method: str, arguments: dict, blobs: Blobs, files=(), progress: Progress | None = None) -> Any:
        named = dict(files)
        try:
            for sha, data in blobs.data.items():
                if sha not in self._there:
                    view = memoryview(data)
                    for at in range(0, max(1, len(view)), PIECE):
                        self._ask("put", sha, len(view), bytes(view[at : at + PIECE]))
            call = {"method": method, "arguments": arguments, "seconds": self.limit, "files": named}
            self._ask("start", json.dumps(call))
            answer = self._answer(progress)
        except BaseException:
            self.close()  # what Ctrl-C, or `progress`, breaks off here would go on over there
            raise
        if "error" in answer:
            raise error_of(answer["error"], self.name)
        self._there |= set(named)
        return answer["result"]

    def _answer(self, progress: Progress | None) -> dict:
        while "progress" in (answer := json.loads(self._ask("wait", ASK_SECONDS))):
            if progress and answer["progress"][1]:
                progress(*answer["progress"])
        return answer

    def _array(self, d: dict) -> np.ndarray:
        return array_of(d, lambda sha: self._fetch(sha, d["bytes"])).copy()

    def _fetch(self, sha: str, size: int) -> bytes:
        return b"".join(bytes(self._ask("fetch", sha, at, PIECE)) for at in range(0, size, PIECE))

    def _ask(self, function: str, *arguments):
        if self._lost:
            raise self._lost
        try:
            return self._functions[function](*arguments)
        except Exception as error:
            self._lost = self._lost or _lost(self.name, str(error))  # unless another thread has closed it
            self.close()
            raise self._lost from None


def _lost(name: str, text: str) -> DeviceLost:
    """What TVM's client raised, as what happened."""
    _, found, told = text.partition(LOST)
    if found:
        reason = json.loads(told.splitlines()[0])
        subject = {"server": "", "idle": "the session "}.get(reason["cause"], "what was asked of it ")
        return DeviceLost(f"{name}: {subject}{reason['reason']}", reason["cause"])
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    if lines[-1].endswith(os.strerror(errno.EAGAIN)):
        return DeviceLost(f"{name}: it has answered nothing for {ANSWER_SECONDS} s")
    return DeviceLost(f"{name}: the connection was lost ({lines[-1]})")


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _file(path: Path, blobs: Blobs) -> tuple[str, str]:
    """(sha256, the name that messages use) of a file that goes up, a .onnx file with its external data. Raises
    UsageError where it cannot be read, and what self_contained raises."""
    read = self_contained if Path(path).suffix == ".onnx" else Path.read_bytes
    try:
        return blobs.add(read(Path(path))), str(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error


def _connect(address: tuple[str, int], match_key: str, name: str, seconds: float):
    """(TVM's session, duplicates of its socket: TVM sets no timeouts and shows no descriptor)."""
    import tvm.rpc

    try:
        resolved = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][4][:2]
    except OSError as error:
        raise TargetError(f"{name}: {error.strerror or error}") from error
    before, found = _open_sockets(), []

    def connect() -> None:
        try:
            found.append(tvm.rpc.connect(resolved[0], resolved[1], match_key))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    sockets = [s for inode, fd in _open_sockets().items() if inode not in before and (s := _socket_to(fd, resolved))]
    session = found[0] if found else TimeoutError(f"no answer in {seconds:g} s; is another session using it?")
    if isinstance(session, Exception):
        _hang_up(sockets)
        lines = [line.strip() for line in str(session).splitlines() if line.strip()]
        raise TargetError(f"{name} cannot be reached: {lines[-1] if lines else type(session).__name__}") from None
    if not sockets:
        raise RuntimeError(f"the connection to {name} is none of this process's sockets")
    for s in sockets:
        keep_alive(s)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            s.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", ANSWER_SECONDS, 0))
    return session, sockets


def _hang_up(sockets: list[socket.socket]) -> None:
    """Ends the connection, whoever else holds its descriptor or waits for it. Two threads may do so at once."""
    while True:
        try:
            found = sockets.pop()
        except IndexError:
            return
        try:
            found.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        found.close()


def _open_sockets() -> dict[str, int]:
    """This process's sockets: inode → descriptor. A descriptor's number may be another's a moment later."""
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            kind, _, inode = os.readlink(f"/proc/self/fd/{fd}").partition(":")
        except OSError:  # closed meanwhile, as what listed them is
            continue
        if kind == "socket":
            found[inode] = int(fd)
    return found


def _socket_to(fd: int, address: tuple) -> socket.socket | None:
    """A duplicate of the descriptor where it is a connection to `address`."""
    try:
        copy = os.dup(fd)
    except OSError:
        return None
    try:
        found = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    try:
        if found.getpeername()[:2] == address:
            return found
    except OSError:
        pass
    found.close()
    return None
