"""Where a pool's devices come from, and who asks there for more."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Protocol

from mpcompile.errors import TargetError
from mpcompile.remote.pool_member import LEAVE_SECONDS
from mpcompile.runtime.device import Device


class DeviceSource(Protocol):
    """Where devices come from. `name` is for messages."""

    name: str

    def take(self) -> Device | None:
        """A device that is free now; None where there is none. Raises TargetError where nobody can be asked, or no such
        device is known."""


class Scout:
    """Asks for more devices, while they are wanted."""

    def __init__(self, source: DeviceSource, events: SimpleQueue, poll: float):
        self.source, self.events, self.poll = source, events, poll
        self.wanted = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="scout", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(self.poll):
            self.wanted.wait()
            if self._over.is_set():
                return
            try:
                device = self.source.take()
            except TargetError:
                continue  # the tracker may come back, as devices do
            if device is not None and self._over.is_set():
                device.close()
            elif device is not None:
                self.events.put((None, None, device))

    def stop(self) -> None:
        self._over.set()
        self.wanted.set()
        self._thread.join(LEAVE_SECONDS)
