"""How long this process was ready to run but had no core: what tells a disturbed sample from a slow subject."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class WaitClock:
    """`read()`: seconds spent without a core, counted up. `exact`: what a run waited is what it was longer by; several
    threads wait together, or for each other, so their sum only tells that something was wrong."""

    read: Callable[[], float]
    exact: bool = True


def _of_this_thread() -> float:
    """Seconds that this thread has ever been ready to run but had no core, from Linux's schedstat; 0 elsewhere."""
    return _waited("/proc/thread-self/schedstat")


def _of_all_threads() -> float:
    """The same, summed over the threads of this process."""
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return 0.0
    return sum(_waited(f"/proc/self/task/{t}/schedstat") for t in threads)


def _waited(path: str) -> float:
    try:
        with open(path) as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


THIS_THREAD = WaitClock(_of_this_thread)
ALL_THREADS = WaitClock(_of_all_threads, exact=False)
NEVER = WaitClock(lambda: 0.0)
"""Of a subject whose seconds hold no waiting: another process or device takes its own off."""


def wait_clock(threads: int) -> WaitClock:
    """For subjects that run on so many threads of this process."""
    return THIS_THREAD if threads == 1 else ALL_THREADS
