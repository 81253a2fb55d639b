"""What a pool is asked to do, item by item: what waits, what is done, by whom, and what devices were lost by."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence

from mpcompile.errors import DeviceLost
from mpcompile.remote.pool_member import Member

DEATHS = 2
"""An item on which so many devices were lost is what they were lost by,"""
INNOCENT = ("idle", "server")
"""but for these causes."""


class WorkQueue:
    """The items of one map."""

    def __init__(self, number: int, work, items: Sequence, done):
        self.number, self.work, self.items, self.done = number, work, items, done
        self.todo = deque(range(len(items)))
        self.deaths: Counter = Counter()
        self.by: dict[int, Member | None] = {}
        """Items that are done → by whom."""
        self.lost: DeviceLost | None = None
        """The last loss, of whatever device."""
        self.began = self.usable_at = self.good_since = time.monotonic()
        """When a device could last be used (usable_at), when a result last counted."""
        self.refused = 0
        """Results that were kept out since the last that was not."""

    @property
    def finished(self) -> bool:
        return len(self.by) == len(self.items)

    def tell(self, at: int, member: Member, result) -> None:
        self.by[at] = member
        self.refused, self.good_since = 0, time.monotonic()
        member.tally.measured += 1
        self.done(self.items[at], result)

    def refuse(self, at: int) -> None:
        self.refused += 1
        self.todo.appendleft(at)

    def died(self, at: int, error: DeviceLost) -> None:
        self.deaths[at] += error.cause not in INNOCENT
        if self.deaths[at] < DEATHS:
            self.todo.appendleft(at)
        else:
            self.by[at] = None
            self.done(self.items[at], error)

    def again(self, member: Member) -> None:
        """What this device did is to be done by others."""
        for at in [at for at, by in self.by.items() if by is member]:
            del self.by[at]
            member.tally.measured -= 1
            self.todo.append(at)
