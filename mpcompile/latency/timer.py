"""What the measurer measures: a subject that can be run any number of times, and the clocks beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpcompile.latency.waiting import THIS_THREAD, WaitClock


@dataclass(frozen=True)
class Timer:
    """A subject of the measurer.

    `seconds(n)` runs it n times and gives the seconds that took, by the clock of the device that it runs on: this
    process's, another machine's, a GPU's events. `waits` is the clock of what in them was waiting for a core; where the
    seconds hold none, it is waiting.NEVER.
    """

    seconds: Callable[[int], float]
    waits: WaitClock = THIS_THREAD

    def waited(self) -> float:
        """Seconds that the subject has been waiting so far, counted up."""
        return self.waits.read()


def local(run: Callable[[], Any], waits: WaitClock = THIS_THREAD) -> Timer:
    """A timer of `run()` by this process's monotonic clock."""

    def seconds(n: int) -> float:
        start = time.perf_counter()
        for _ in range(n):
            run()
        return time.perf_counter() - start

    return Timer(seconds, waits)
