"""This machine as a device that may crash: what is measured runs in a process of its own, with limits; when that dies,
another one takes its place."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mpcompile.latency.alike import SLOWER_HERE
from mpcompile.remote.connection import RemoteDevice
from mpcompile.remote.pool import Pool
from mpcompile.runtime.server.limits import Limits
from mpcompile.runtime.server.serve import Server

POLL = 0.2


class Sessions:
    """A pool's source: sessions on this machine, one at a time, served to this process alone."""

    name = "this machine"

    def __init__(self, limits: Limits):
        self._key = secrets.token_hex(16)
        self._server = Server(key=self._key, limits=limits, quiet=True)
        self._device: RemoteDevice | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._server.run, name=self.name, daemon=True)
        self._thread.start()

    def take(self) -> RemoteDevice | None:
        """A session, where none is going on. Raises TargetError where none can be started."""
        with self._lock:
            if self._device is not None and not self._device.lost:
                return None
            self._device = RemoteDevice(self._server.address, self._key, self.name)
            return self._device

    def close(self) -> None:
        self._server.stop()
        self._thread.join()


@contextmanager
def this_machine(limits: Limits | None = None) -> Iterator[Pool]:
    """A pool of this machine, in a process of its own: work that crashes it, runs longer than `limits` or takes more
    memory is done with DeviceLost, and the next finds a new process. Nothing of it is left when the block ends."""
    sessions = Sessions(limits or Limits())
    pool = None
    try:
        pool = Pool(source=sessions, slower=SLOWER_HERE, poll=POLL, deaths=1)
        yield pool
    finally:
        if pool:
            pool.close()
        sessions.close()
