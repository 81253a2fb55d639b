"""The listening loop: one session at a time, each by a process that was started before it was asked for."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mpcompile.errors import TargetError, UsageError
from mpcompile.runtime.device import About
from mpcompile.runtime.server.limits import Limits, half_of_memory
from mpcompile.runtime.server.process import Ended, SessionProcess
from mpcompile.runtime.server.tracker import TrackerEntry
from mpcompile.runtime.server.wire import LOST, PROTOCOL

HANDSHAKE_SECONDS = 10.0
DRAIN_SECONDS = 5.0
RETRY = 2.0
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4),
             (socket.TCP_USER_TIMEOUT, 30000))
"""A peer that vanished without a word is noticed within half a minute."""


def keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class Server:
    """A device offered at `address`. Binding happens here: raises UsageError where the port is taken.

    `key`: what hosts ask for. `tracker`: TVM's, where there is one; hosts reach the device at `announce`, else where the
    tracker sees it. `log(line)` takes lines for people; `quiet`: what sessions write to stderr is dropped.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, *, key: str, limits: Limits | None = None,
                 tracker: tuple[str, int] | None = None, announce: str | None = None,
                 log: Callable[[str], None] = lambda line: None, quiet: bool = False):
        limits = limits or Limits()
        self.limits = limits if limits.memory else replace(limits, memory=half_of_memory())
        self.key, self._log, self._quiet = key, log, quiet
        self._about = About.here()
        self._listening = _listen(host, port)
        self.address: tuple[str, int] = self._listening.getsockname()[:2]
        self._stop, self._stopping = socket.socketpair()
        self._entry = TrackerEntry(tracker, key, self.address[1], announce, self._report, log) if tracker else None
        self._client = ""

    def stop(self) -> None:
        """Makes run return; from any thread, or a signal handler."""
        try:
            self._stopping.send(b"x")
        except OSError:
            pass

    def run(self) -> None:
        """Serves until stop() or KeyboardInterrupt; leaves no process and no file. Raises TargetError where sessions
        cannot be started here."""
        import tvm.rpc  # noqa: F401  ReturnException, the tracker's codes

        process = None
        try:
            process = SessionProcess(self._quiet)
            if not process.wait_ready(self._stop):
                return
            if self._entry:
                self._entry.start()
            while True:
                if self._entry:
                    self._entry.set_free(True)
                accepted = self._accept(process)
                if accepted is None:
                    return
                if accepted:
                    old, process = process, None
                    ended = self._serve(old, *accepted)
                    if ended:
                        return
                process = self._next(process)
                if process is None:
                    return
        finally:
            if process:
                process.end()
            self._listening.close()
            if self._entry:
                self._entry.stop()
            self._stop.close()
            self._stopping.close()

    def _next(self, process: SessionProcess | None) -> SessionProcess | None:
        """A process that is ready; None where the server is to stop."""
        if process is not None:
            process.end()
        while True:
            process = SessionProcess(self._quiet)
            try:
                if process.wait_ready(self._stop):
                    return process
            except TargetError as error:
                self._log(f"{error}; trying again")
                if select.select([self._stop], [], [], RETRY)[0]:
                    return None
                continue
            process.end()
            return None

    def _report(self) -> dict:
        return {"about": self._about.to_json(), "client": self._client}

    # -- one client ----------------------------------------------------------------------------------
    def _accept(self, process: SessionProcess) -> tuple | None:
        """(connection, who, seconds) of the next client; None to stop, () where the process has died meanwhile."""
        poller = select.poll()
        for s in (self._listening, self._stop, process.control):
            poller.register(s, select.POLLIN)
        while True:
            found = dict(poller.poll())
            if self._stop.fileno() in found:
                return None
            if process.control.fileno() in found:
                return ()
            try:
                connection, peer = self._listening.accept()
            except OSError:
                continue
            try:
                seconds = self._handshake(connection)
            except (OSError, ValueError, struct.error):
                seconds = None
            if seconds is None:
                connection.close()
                continue
            connection.settimeout(None)
            return connection, str(peer[0]), seconds

    def _handshake(self, connection: socket.socket) -> float | None:
        """Seconds that the session may take in all, or None where the client is not for us. TVM's protocol."""
        from tvm.rpc.base import RPC_CODE_MISMATCH, RPC_CODE_SUCCESS, RPC_MAGIC, recvall

        connection.settimeout(HANDSHAKE_SECONDS)
        magic = struct.unpack("<i", recvall(connection, 4))[0]
        if magic != RPC_MAGIC:
            connection.sendall(struct.pack("<i", RPC_MAGIC))    # whoever looks for a tracker learns what this is
            return None
        length = struct.unpack("<i", recvall(connection, 4))[0]
        if not 0 < length < 4096:
            return None
        role, _, key = recvall(connection, length).decode().partition(":")
        key, *options = key.split()
        if role != "client" or not (self._entry.accepts(key) if self._entry else key == self.key):
            connection.sendall(struct.pack("<i", RPC_CODE_MISMATCH))
            return None
        name = f"server:{self.key}".encode()
        keep_alive(connection)
        connection.sendall(struct.pack("<ii", RPC_CODE_SUCCESS, len(name)) + name)
        asked = [float(o.removeprefix("-timeout=")) for o in options if o.startswith("-timeout=")]
        return min([self.limits.seconds, *asked])

    def _serve(self, process: SessionProcess, connection: socket.socket, who: str, seconds: float) -> bool:
        """One session. True where the server is to stop."""
        self._client, begun = who, time.monotonic()
        if self._entry:
            self._entry.set_free(False)
        self._log(f"session of {who} begins")
        stopped = False
        try:
            process.hand(connection, {"protocol": PROTOCOL, "key": self.key, "limits": self.limits.to_json()})
            how = process.watch(connection, self.limits, seconds, self._stop)
        except Ended as error:
            how, stopped = str(error), error.cause == "server"
            process.end()
            _tell(connection, LOST + json.dumps({"cause": error.cause, "reason": how}))
        finally:
            process.end()
            self._client = ""
        self._log(f"session of {who} ended after {time.monotonic() - begun:.1f} s: {how}")
        threading.Thread(target=_drain, args=(connection,), daemon=True).start()
        return stopped


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}: {error.strerror or error}") from error
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(address)
        found.listen(16)
    except OSError as error:
        found.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return found


def _tell(connection: socket.socket, text: str) -> None:
    """Writes the reason where the client waits for an answer; it may be gone."""
    from tvm.rpc import _ffi_api

    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 2, 0))
    try:
        _ffi_api.ReturnException(connection.fileno(), text)
    except Exception:
        pass


def _drain(connection: socket.socket) -> None:
    """Closes in a way that lets the client read what was written: unread data would make it a reset."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(DRAIN_SECONDS)
        end = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < end and connection.recv(1 << 16):
            pass
    except OSError:
        pass
    finally:
        connection.close()
