"""A device of a pool: what it is doing, and the thread that does it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from mpcompile.runtime.device import Device

CHECKING, IDLE, BUSY, OUT = "checking", "idle", "busy", "kept out"
LEAVE_SECONDS = 10.0


@dataclass
class Tally:
    """What became of a device, over all the times that it joined. `ratio`: the slowest that its reference kernel ran,
    over the best of the pool."""

    measured: int = 0
    lost: int = 0
    kept_out: int = 0
    ratio: float = 1.0

    def words(self) -> str:
        """For people."""
        said = [f"{self.measured} measurement{'s' * (self.measured != 1)}"]
        if self.kept_out:
            said.append(f"kept out {times(self.kept_out)}, {self.ratio:.1f}× slower")
        if self.lost:
            said.append(f"lost {times(self.lost)}")
        return ", ".join(said)


class Member:
    """A device with a thread of its own; or (`threaded` False) what it is given runs at once, in the caller's.

    `report(member, job, outcome)` is called with what a job returned, or with the exception that it raised. `reference`
    is its last, in seconds; `until` when a device that is kept out is looked at again.
    """

    def __init__(self, device: Device, tally: Tally, report: Callable[[Member, Any, Any], None], threaded: bool):
        self.device, self.tally, self.report, self.threaded = device, tally, report, threaded
        self.state, self.reference, self.until = IDLE, 0.0, 0.0
        self._inbox: SimpleQueue = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=device.name, daemon=True)
        if threaded:
            self._thread.start()

    @property
    def name(self) -> str:
        return self.device.name

    def give(self, job: Any, work: Callable[[Device], Any]) -> None:
        """Does `work`; in a thread, later."""
        if self.threaded:
            self._inbox.put((job, work))
            return
        try:
            outcome = work(self.device)
        except Exception as error:
            outcome = error
        self.report(self, job, outcome)

    def leave(self) -> None:
        """Gives the device back; what it is doing is broken off, where it can be, else waited for a little. A process
        must not end while a thread is in TVM's code: TVM would end it the hard way."""
        try:
            self.device.close()
        except Exception:
            pass  # it is gone: there is nothing to give back
        if self.threaded:
            self._inbox.put(None)
            self._thread.join(LEAVE_SECONDS)

    def _serve(self) -> None:
        while (given := self._inbox.get()) is not None:
            job, work = given
            try:
                outcome = work(self.device)
            except BaseException as error:
                outcome = error
            self.report(self, job, outcome)


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
