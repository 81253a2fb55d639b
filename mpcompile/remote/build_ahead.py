"""A pool's work in two steps: what is built here, while the devices are at work, and then measured on one of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from mpcompile.errors import DeviceLost
from mpcompile.remote.pool import DevicePool
from mpcompile.runtime.device import Device

Item = TypeVar("Item")
Built = TypeVar("Built")
Result = TypeVar("Result")


def map_built(
    pool: DevicePool,
    build: Callable[[Item], Built],
    work: Callable[[Device, Item, Built], Result],
    items: Sequence[Item],
    done: Callable[[Item, Result | DeviceLost], None],
) -> None:
    """As DevicePool.map of `work` on each item and on what `build` made of it, at most once where nothing goes wrong.

    Builds come one after another, those that the devices will want next ahead of them; on this machine, whose numbers
    building would disturb, each only when it is wanted.
    """
    if not pool.elsewhere:
        pool.map(lambda device, item: work(device, item, build(item)), items, done)
        return
    with ThreadPoolExecutor(1, "builds") as builder:
        builds = _Builds(builder, build, items, pool.devices_at_once)

        def told(item: Item, result: Result | DeviceLost) -> None:
            builds.drop(item)
            done(item, result)

        try:
            pool.map(lambda device, item: work(device, item, builds.get(item)), items, told)
        finally:
            builder.shutdown(wait=False, cancel_futures=True)


class _Builds:
    """What is built, or going to be: twice what so many devices work on at once. Called from the devices' threads."""

    def __init__(self, builder: ThreadPoolExecutor, build: Callable, items: Sequence, devices_at_once: int):
        self._builder, self._build, self._most = builder, build, 2 * devices_at_once
        self._later = deque(items)
        self._lock = threading.Lock()
        self._built: dict[Any, Future] = {}

    def get(self, item):
        """What was built of it, when it is; others after it are on their way."""
        with self._lock:
            if item not in self._built:
                if item in self._later:
                    self._later.remove(item)
                self._start(item)
            wanted = self._built[item]
            while self._later and len(self._built) < self._most:
                self._start(self._later.popleft())
        return wanted.result()

    def drop(self, item) -> None:
        with self._lock:
            self._built.pop(item, None)

    def _start(self, item) -> None:
        self._built[item] = self._builder.submit(self._build, item)
