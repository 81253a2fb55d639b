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
from typing import Literal

from mpcompile.errors import ResourceError, TargetError
from mpcompile.runtime.device import About
from mpcompile.runtime.server.door import Client, Door
from mpcompile.runtime.server.limits import Limits, half_of_memory
from mpcompile.runtime.server.process import Ended, SessionProcess, sweep
from mpcompile.runtime.server.tracker import TrackerEntry
from mpcompile.runtime.server.wire import LOST, PROTOCOL
from mpcompile.runtime.state import State
from mpcompile.temporary import NO_ROOM, no_room

DRAIN_SECONDS = 5.0
RETRY = 2.0


class Server:
    """A device offered at `address`. Binding happens here: raises UsageError where the port is taken.

    `key`: what hosts ask for. `tracker`: TVM's, where there is one; hosts reach the device at `announce`, else where
    the tracker sees it. `log(line)` takes lines for people; `quiet`: what sessions write to stderr is dropped.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        key: str,
        limits: Limits | None = None,
        tracker: tuple[str, int] | None = None,
        announce: str | None = None,
        log: Callable[[str], None] = lambda line: None,
        quiet: bool = False,
    ):
        limits = limits or Limits()
        self.limits = limits if limits.memory else replace(limits, memory=half_of_memory())
        self.key, self._log, self._quiet = key, log, quiet
        self._about = About.here()
        self._door = Door(host, port, key, self._whole_report, log)
        self.address = self._door.address
        self._stop, self._stopping = socket.socketpair()
        self._entry = TrackerEntry(tracker, key, self.address[1], announce, self._report, log) if tracker else None
        self._client = ""
        self._free, self._since = False, time.monotonic()
        self._state = State.here()
        self._process: SessionProcess | None = None

    def stop(self) -> None:
        """Makes run return; from any thread, or a signal handler."""
        try:
            self._stopping.send(b"x")
        except OSError:
            pass

    def run(self) -> None:
        """Serves until stop() or KeyboardInterrupt; leaves no process and no file. Raises TargetError where sessions
        cannot be started here, ResourceError where there is no room for their files."""
        import tvm.rpc  # noqa: F401  ReturnException, the tracker's codes

        sweep()
        try:
            self._door.open(self._entry.accepts if self._entry else self.key.__eq__)
            if not self._start():
                return
            if self._entry:
                self._entry.start()
            while True:
                self._set_free(True)
                client = self._wait()
                if client is None or (client and self._serve(client)):
                    return
                if not self._start_again():
                    return
        finally:
            if self._process:
                self._process.end()
            self._door.close()
            if self._entry:
                self._entry.stop()
            self._stop.close()
            self._stopping.close()

    def _start(self) -> bool:
        """A fresh process for the next session. False where the server is to stop. Raises TargetError, ResourceError."""
        try:
            self._process = SessionProcess(self._quiet)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise no_room(str(error.strerror)) from error
            raise TargetError(
                f"the process that runs kernels does not start here: {error.strerror or error}"
            ) from error
        return self._process.wait_ready(self._stop)

    @property
    def _started(self) -> SessionProcess:
        assert self._process is not None
        return self._process

    def _start_again(self) -> bool:
        while True:
            self._started.end()
            try:
                return self._start()
            except (TargetError, ResourceError) as error:
                self._log(f"{error}; trying again")
            if select.select([self._stop], [], [], RETRY)[0]:
                return False

    def _set_free(self, free: bool) -> None:
        self._free, self._since = free, time.monotonic()
        if self._entry:
            self._entry.set_free(free)

    def _whole_report(self) -> dict:
        """What a tracker would know."""
        return {
            "key": self.key,
            "free": self._free,
            "seconds": round(time.monotonic() - self._since, 1),
            **self._report(),
        }

    def _report(self) -> dict:
        """What the tracker shows of it. While it measures, nothing is read that might disturb."""
        if not self._client:
            self._state = State.here()
        return {"about": self._about.to_json(), "client": self._client, "state": self._state.to_json()}

    # -- one client ----------------------------------------------------------------------------------
    def _wait(self) -> Client | Literal[False] | None:
        """The next client; None to stop, False where the process has died meanwhile."""
        control = self._started.control
        poller = select.poll()
        for s in (self._door.bell, self._stop, control):
            poller.register(s, select.POLLIN)
        while True:
            client = self._door.enter()
            if client:
                return client
            found = dict(poller.poll())
            if self._stop.fileno() in found:
                return None
            if control.fileno() in found:
                return False

    def _serve(self, client: Client) -> bool:
        """One session. True where the server is to stop."""
        self._client, begun, who, connection = client.address, time.monotonic(), client.address, client.connection
        seconds = min(self.limits.seconds, client.seconds or self.limits.seconds)
        self._set_free(False)
        self._log(f"session of {who} begins")
        process, stopped = self._started, False
        try:
            try:
                process.hand(connection, {"protocol": PROTOCOL, "key": self.key, "limits": self.limits.to_json()})
            except OSError as error:
                raise Ended("crash", "found its process dead") from error
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


def _tell(connection: socket.socket, text: str) -> None:
    """Writes the reason where the client waits for an answer; it may be gone."""
    from tvm.rpc import _ffi_api

    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 2, 0))
    try:
        _ffi_api.ReturnException(connection.fileno(), text)  # pyright: ignore[reportAttributeAccessIssue]
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
