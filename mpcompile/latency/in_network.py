"""A layer timed as it runs in its network: its inputs fresh in the caches, its weights and code not.

Run by itself again and again, a layer finds everything where it left it. In a network the other layers have been there
since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import numpy as np

from mpcompile.latency.timer import Timer
from mpcompile.latency.waiting import NEVER

LEAST = 3
LINE = 64


def cache_stirrer(nbytes: int) -> Callable[[], None]:
    """A callable that reads `nbytes` of memory, a cache line at a time.

    That is what other layers do to the caches between two runs.
    """
    lines = np.zeros(max(LINE, nbytes), np.uint8)[::LINE]

    def stir() -> None:
        lines.sum(dtype=np.uint8)

    return stir


def timer_in_network(layer: Timer, before: Sequence[Timer], stir: Callable[[], None]) -> Timer:
    """A timer of `layer`, each run after `stir` and one run of each of `before`, which write its inputs.

    It returns n times the median of n runs (at least LEAST), so that a run in which another process had the core does
    not count; the measurer's clock of waiting, which cannot tell the layer from what runs before it, is not asked.
    """

    # Looked up once: for a layer of few microseconds an attribute is not nothing.
    produce, run = [producer.seconds for producer in before], layer.seconds

    def seconds(n: int) -> float:
        taken = []
        for _ in range(max(n, LEAST)):
            stir()
            for producer in produce:
                producer(1)
            taken.append(run(1))
        return n * median(taken)

    return Timer(seconds, NEVER)
