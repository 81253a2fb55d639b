"""A session's process as the server sees it: started ahead, handed a connection, watched, ended with all that it
started."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from mpcompile.errors import TargetError, UsageError
from mpcompile.locks import exclusive_folder
from mpcompile.runtime.server.limits import Limits
from mpcompile.runtime.server.wire import ORDERLY
from mpcompile.temporary import no_room

TICK = 0.2
"""Seconds between two looks at a session's memory."""
FAMILY_TICK = 3.0
"""Seconds between two looks for processes that it has started."""
START_SECONDS = 180.0
GRACE = 2.0
"""Seconds that a process has to end by itself after its client has gone."""

PREFIX = "mpcompile-session-"
LEFT_SECONDS = 60.0
"""A session's folder that is older, and that no server holds, was left behind."""

BOOT = """import sys
sys.path[:] = sys.argv[3].split(":")
import socket, pathlib
from mpcompile.runtime.server.session import main
main(socket.socket(fileno=int(sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


class Ended(Exception):
    """Why a session ended, where it did not end as it should. `cause`: see errors.DeviceLost."""

    def __init__(self, cause: str, reason: str):
        super().__init__(reason)
        self.cause = cause


def sweep() -> None:
    """Removes the folders of servers that were killed together with their sessions."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if time.time() > folder.stat().st_mtime + LEFT_SECONDS:
                with exclusive_folder(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        except (OSError, UsageError):  # gone meanwhile; or of a server that lives, or of another user
            continue


class SessionProcess:
    """A process of its own group, in a folder of its own, which is removed with it. Raises OSError where there is no
    memory, no space or no descriptor left for it."""

    def __init__(self, quiet: bool = False):
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._held = ExitStack()
        paths = ":".join(p or os.getcwd() for p in sys.path)
        env = os.environ | {"TVM_USE_RUNTIME_LIB": "1", "TMPDIR": str(self.folder)}
        try:
            self._held.enter_context(exclusive_folder(self.folder))
            self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", BOOT, str(theirs.fileno()), str(self.folder), paths],
                    env=env,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL if quiet else None,
                )
        except BaseException:
            self._remove()
            raise
        self._family_at = 0.0
        self._children: list = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, stop: socket.socket) -> bool:
        """True when it can take a connection; False where `stop` became readable first. Raises TargetError with its
        reason where it cannot start, ResourceError where its folder has no room."""
        end = time.monotonic() + START_SECONDS
        poller = select.poll()
        for s in (self.control, stop):
            poller.register(s, select.POLLIN)
        event = None
        while (left := end - time.monotonic()) > 0:
            found = dict(poller.poll(1000 * left))
            if stop.fileno() in found:
                return False
            if self.control.fileno() in found:
                event = self._event() or {"event": "failed", "reason": "it ended without a word"}
                break
        if event is None or event["event"] != "ready":
            reason = event["reason"] if event else f"it said nothing within {START_SECONDS:.0f} s"
            self.end()
            if event and event["event"] == "full":
                raise no_room(reason, self.folder)
            raise TargetError(f"the process that runs kernels does not start here: {reason}")
        return True

    def alive(self) -> bool:
        return self._process.poll() is None

    def hand(self, connection: socket.socket, greeting: dict) -> None:
        """Gives it the connection to serve."""
        socket.send_fds(self.control, [json.dumps(greeting).encode()], [connection.fileno()])

    def watch(self, connection: socket.socket, limits: Limits, seconds: float, stop: socket.socket) -> str:
        """Returns when the session has ended, saying how, and raises Ended where it broke a limit, or crashed.

        `seconds`: of the whole session, as long as its client has not shown to be mpcompile.
        """
        until, cause, what = time.monotonic() + seconds, "time", f"ran longer than {seconds:g} s"
        working, closed = False, None
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        poller.register(stop, select.POLLIN)
        while True:
            found = dict(poller.poll(1000 * TICK))
            if self.control.fileno() in found:
                event = self._event()
                if event is None:
                    return self._exit()
                working = event["event"] == "job"
                if working:
                    allowed = min(event["seconds"] or limits.seconds, limits.seconds)
                    until, what, cause = time.monotonic() + allowed, f"ran longer than {allowed:g} s", "time"
                else:  # it has come in, or it is done with a call
                    until, cause = time.monotonic() + limits.idle, "idle"
                    what = f"was asked for nothing in {limits.idle:g} s"
            if not self.alive():
                return self._exit()
            if stop.fileno() in found:
                raise Ended("server", "the server was stopped")
            now = time.monotonic()
            if connection.fileno() in found:
                closed = closed or now
                if working or now > closed + GRACE:
                    return "the client went away" + " in the middle of its work" * working
                time.sleep(TICK / 4)
            if now > until:
                raise Ended(cause, what)
            used = self._memory(now)
            if limits.memory and used > limits.memory:
                raise Ended("memory", f"took {used >> 20} MiB of memory, more than {limits.memory >> 20} MiB")

    def end(self) -> None:
        """Kills what is left of it, all of it, and removes its folder. May be called again."""
        import psutil

        if self.control.fileno() < 0:
            return
        family = self._family()
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for child in family:
            try:
                child.kill()
            except psutil.Error:
                pass
        self._process.wait()
        self.control.close()
        self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()

    def _event(self) -> dict | None:
        """What it says; None where it has ended."""
        try:
            data = self.control.recv(1 << 16)
        except OSError:
            return None
        return json.loads(data) if data else None

    def _exit(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.Signals._value2member_map_ else f"signal {-code}"
            if name == "SIGKILL":
                raise Ended("killed", "was killed (SIGKILL), by the system for lack of memory or by someone")
            raise Ended("crash", f"crashed ({name})")
        if code != ORDERLY:
            raise Ended("crash", f"ended with status {code}")
        return "the client closed it"

    def _family(self) -> list:
        import psutil

        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []

    def _memory(self, now: float) -> int:
        """Bytes that it and its children hold in memory."""
        import psutil

        if now > self._family_at + FAMILY_TICK:
            self._family_at, self._children = now, self._family()
        total = 0
        for pid in [self.pid, *(c.pid for c in self._children)]:
            try:
                total += psutil.Process(pid).memory_info().rss
            except psutil.Error:
                pass
        return total
