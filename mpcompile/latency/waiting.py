"""How long this process was ready to run but had no core: what tells a disturbed sample from a slow subject."""

from __future__ import annotations

import os
from collections.abc import Callable


def waited() -> float:
    """Seconds that this thread has ever been ready to run but had no core, from Linux's schedstat; 0 elsewhere."""
    return _waited("/proc/thread-self/schedstat")


def waited_by_all() -> float:
    """The same, summed over the threads of this process: for what runs on several. It tells disturbed samples, but
    corrects none."""
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        return 0.0
    return sum(_waited(f"/proc/self/task/{t}/schedstat") for t in threads)


def waits_of(threads: int) -> Callable[[], float]:
    """The clock of waiting for subjects that run on so many threads of this process."""
    return waited if threads == 1 else waited_by_all


def _waited(path: str) -> float:
    try:
        with open(path) as file:
            return int(file.read().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0
