"""A session: the process that runs what a host sends. Started ahead, it loads TVM's runtime and waits for a connection.

Its main thread does the work, as LocalDevice; another serves TVM's RPC meanwhile, so that the host can ask how far it
is. A third waits for the server's end. When the host or the server goes, the process ends where it stands.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import queue
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

from mpcompile.runtime.device import LocalDevice
from mpcompile.runtime.server.wire import FUNCTIONS, ORDERLY, Blobs, array_of, error_to_json, kernel_of
from mpcompile.temporary import NO_ROOM

_LEAVING = threading.Lock()


class Session:
    """The functions that a host calls, and the work. `tell(event, **values)` informs the server."""

    def __init__(self, folder: Path, tell: Callable[..., None], greeting: dict):
        self._folder, self._tell, self._greeting = folder, tell, greeting
        self._device = LocalDevice()
        self._blobs: dict[str, bytearray] = {}
        self._files: dict[str, str] = {}
        self._work: queue.SimpleQueue = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._progress = [0, 0]
        self._answer: dict | None = None
        self._results: dict[str, bytes | memoryview] = {}

    # -- called by the host, on the thread that serves RPC --------------------------------------------
    def about(self) -> str:
        self._tell("host")
        return json.dumps(self._greeting | {"about": self._device.about.to_json()})

    def state(self) -> str:
        return json.dumps(self._device.state().to_json())

    def put(self, sha: str, total: int, piece: bytes) -> int:
        """Bytes of the blob that are here. Raises ValueError where the whole is not what its name says."""
        blob = self._blobs.setdefault(sha, bytearray())
        blob += piece
        if len(blob) >= total and hashlib.sha256(blob).hexdigest() != sha:
            del self._blobs[sha]
            raise ValueError("a blob was damaged on its way")
        return len(blob)

    def start(self, text: str) -> int:
        call = json.loads(text)
        self._progress, self._answer, self._results = [0, 0], None, {}
        self._tell("job", seconds=call["seconds"])
        self._work.put(call)
        return 1

    def wait(self, seconds: float) -> str:
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None, seconds)
            return json.dumps(self._answer or {"progress": self._progress})

    def fetch(self, sha: str, at: int, size: int) -> bytes:
        return bytes(self._results[sha][at : at + size])

    # -- the work, on the main thread -----------------------------------------------------------------
    def run(self) -> None:
        while True:
            call = self._work.get()
            try:
                self._store(call["files"])
                answer = {"result": getattr(self, f"_{call['method']}")(call["arguments"])}
            except BaseException as error:
                answer = {"error": error_to_json(error, self._files)}
            self._blobs.clear()
            self._tell("done")
            with self._changed:
                self._answer = answer
                self._changed.notify_all()

    def _show(self, done: int, total: int) -> None:
        self._progress = [done, total]

    def _blob(self, sha: str) -> bytearray:
        return self._blobs[sha]

    def _store(self, files: dict[str, str]) -> None:
        """Blobs that came up become files of the session, each once: what was loaded is never written again."""
        for sha, name in files.items():
            path = self._path(sha, name)
            if not path.exists():
                path.with_suffix(".part").write_bytes(self._blobs[sha])
                path.with_suffix(".part").rename(path)
            self._files[str(path)] = name

    def _path(self, sha: str, name: str) -> Path:
        return self._folder / f"{sha[:32]}{Path(name).suffix}"

    def _time_kernels(self, d: dict) -> dict:
        kernels = {name: kernel_of(k, self._blob) for name, k in d.pop("kernels").items()}
        return self._device.time_kernels(kernels, **d, progress=self._show).to_json()

    def _race(self, d: dict) -> dict:
        files = {name: self._path(*f) for name, f in d.pop("files").items()}
        return self._device.race(files, **d, progress=self._show).to_json()

    def _profile(self, d: dict) -> dict:
        return self._device.profile(self._path(*d.pop("bundle")), **d, progress=self._show).to_json()

    def _run(self, d: dict) -> dict:
        inputs = {name: array_of(a, self._blob) for name, a in d.pop("inputs").items()}
        found, blobs = self._device.run(self._path(*d.pop("file")), inputs, **d), Blobs()
        outputs = {name: blobs.add_array(a) for name, a in found.items()}
        self._results = blobs.data
        return outputs

    def _trace(self, d: dict) -> dict:
        inputs = {name: array_of(a, self._blob) for name, a in d.pop("inputs").items()}
        found, blobs = self._device.trace(self._path(*d.pop("bundle")), inputs, **d), Blobs()
        buffers = {tensor: {key: blobs.add_array(a) for key, a in traced.items()} for tensor, traced in found.items()}
        self._results = blobs.data
        return buffers

    def _reference(self, d: dict) -> float:
        return self._device.reference()


def main(control: socket.socket, folder: Path) -> None:
    """Says that it is ready, waits for a connection, serves it, and never returns."""

    def tell(event: str, **values) -> None:
        control.send(json.dumps({"event": event, **values}).encode())

    try:
        _sacrifice()
        try:
            _load(folder)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                tell("full", reason=error.strerror)
                raise
            tell("failed", reason=" ".join(f"{type(error).__name__}: {error}".split())[:2000])
            raise
        tell("ready")
        data, fds, _, _ = socket.recv_fds(control, 1 << 20, 1)
        if fds:
            _follow(control, folder)
            session = Session(folder, tell, json.loads(data))
            _serve(session, fds[0], folder)
            session.run()
    finally:
        _leave(folder)


def _load(folder: Path) -> None:
    """TVM's runtime, and what its own clients expect of a server."""
    cast(dict[str, ModuleType | None], sys.modules).setdefault(
        "torch", None
    )  # TVM imports it where it is installed: seconds, and for nothing
    import tvm.rpc
    from tvm.rpc import server
    from tvm.support import utils

    logging.getLogger("RPCServer").setLevel(logging.ERROR)
    server._server_env(None, utils.tempdir(str(folder / "uploads")))
    os.chdir(folder / "uploads")
    extra = Path(tvm.__file__).parent / "lib" / "libtvm_runtime_extra.so"
    if extra.exists():  # random_fill_for_measure, of MetaSchedule's runner
        ctypes.CDLL(str(extra), ctypes.RTLD_GLOBAL)


def _serve(session: Session, fd: int, folder: Path) -> None:
    """Answers the host, on another thread."""
    import tvm
    from tvm.rpc import _ffi_api

    for name in FUNCTIONS:
        tvm.register_global_func(f"mpcompile.{name}", getattr(session, name), override=True)

    def loop() -> None:
        try:
            _ffi_api.ServerLoop(fd)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            _leave(folder)

    threading.Thread(target=loop, daemon=True).start()


def _follow(control: socket.socket, folder: Path) -> None:
    """The server says nothing more; when it is gone, so is this process."""

    def loop() -> None:
        try:
            control.recv(1)
        finally:
            _leave(folder)

    threading.Thread(target=loop, daemon=True).start()


def _leave(folder: Path) -> None:
    """The server removes the folder, too; but it may be gone. The first thread that comes here does it: a second one
    would end the process in the middle of that."""
    _LEAVING.acquire()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(ORDERLY)


def _sacrifice() -> None:
    """Where memory runs out, the kernel shall end this process and not another."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass
