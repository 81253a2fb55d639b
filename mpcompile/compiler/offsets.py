"""Where buffers with known lifetimes go in one block: offsets of a static allocation. Nothing of TVM or numpy here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGNMENT = 64


def aligned(nbytes: int) -> int:
    """The next multiple of 64, which is a cache line and the widest vector."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class Interval:
    """`nbytes` that hold their contents from call `first` to call `last`, both included."""

    nbytes: int
    first: int
    last: int

    def meets(self, other: Interval) -> bool:
        return self.first <= other.last and other.first <= self.last


def live_bytes(intervals: Sequence[Interval]) -> int:
    """The largest sum of sizes alive during one call: no placement takes less."""
    starts = {i.first for i in intervals}
    return max((sum(i.nbytes for i in intervals if i.first <= at <= i.last) for at in starts), default=0)


_ORDERS: tuple[Callable[[Interval], tuple], ...] = (
    lambda i: (-i.nbytes, i.first),
    lambda i: (-i.nbytes * (i.last - i.first + 1), i.first),
    lambda i: (i.first - i.last, -i.nbytes),
    lambda i: (i.first, -i.nbytes),
)
"""Largest first; largest area (bytes × calls) first; longest first; in order of the calls. Which is best depends on
the network, so all are tried."""


def place(intervals: Sequence[Interval]) -> tuple[list[int], int]:
    """An offset for each interval, 64-byte aligned, and the size of the block. What meets in time never overlaps.

    For each order, every interval goes into the smallest gap that holds it between those already placed that meet it
    (best fit), else behind them; the order with the smallest block wins.
    """
    return min((_place(intervals, order) for order in _ORDERS), key=lambda found: found[1])


def _place(intervals: Sequence[Interval], order: Callable[[Interval], tuple]) -> tuple[list[int], int]:
    offsets = [0] * len(intervals)
    placed: list[int] = []
    for index in sorted(range(len(intervals)), key=lambda k: order(intervals[k])):
        here = intervals[index]
        meeting = [k for k in placed if intervals[k].meets(here)]
        taken = sorted((offsets[k], offsets[k] + aligned(intervals[k].nbytes)) for k in meeting)
        best, slack, end = None, 0, 0
        for start, stop in taken:
            gap = start - end
            if gap >= here.nbytes and (best is None or gap < slack):
                best, slack = end, gap
            end = max(end, stop)
        offsets[index] = end if best is None else best
        placed.append(index)
    return offsets, max((offsets[k] + aligned(intervals[k].nbytes) for k in placed), default=0)
