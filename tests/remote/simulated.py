"""Devices that are formulas: they measure what they are told to, as slowly as they are told, die and come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from mpcompile import __version__
from mpcompile.errors import DeviceLost
from mpcompile.latency.measure import Measurement, Timing
from mpcompile.runtime.device import About

FEATURES = ("avx2", "sse4_2", "popcnt")
ABOUT = About("x86_64", FEATURES, "a formula", 4, 4, 1 << 20, 1000, "Linux", "3.11", __version__, "0.27", "")


class Formula:
    """`slow`: a factor on all its times, or a function that gives one; `dies(item)`: whether it is lost by it."""

    def __init__(
        self,
        name: str,
        slow: float | Callable[[], float] = 1.0,
        dies: Callable = lambda item: False,
        pause: float = 0.0,
        about: About = ABOUT,
        **changed,
    ):
        self.name, self.slow, self.dies, self.pause = name, slow, dies, pause
        self.about = replace(about, **changed)
        self.took: list = []
        self.closed = False

    def factor(self) -> float:
        return self.slow() if callable(self.slow) else self.slow

    def reference(self) -> float:
        return 1e-5 * self.factor()

    def measure(self, item) -> Measurement:
        """`item` in microseconds."""
        time.sleep(self.pause)
        self.took.append(item)
        if self.dies(item):
            raise DeviceLost(f"{self.name} was lost")
        factor = self.factor()
        seconds = factor * (item if isinstance(item, (int, float)) else 1) * 1e-6
        return Measurement({"it": Timing("it", seconds, seconds, seconds, 1)}, 1e-5 * factor, 1e-5 * factor, 1, 0.05)

    def close(self) -> None:
        self.closed = True


class Clock:
    """A `time` that goes on when it is told to. To sleep takes no time."""

    def __init__(self):
        self.now = 1000.0
        self.slept: list[float] = []
        self.asked = 0

    def monotonic(self) -> float:
        self.asked += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Shelf:
    """A source: devices that lie here may be taken."""

    name = "the shelf"

    def __init__(self, *devices):
        self.devices = list(devices)
        self.lock = threading.Lock()

    def take(self):
        with self.lock:
            return self.devices.pop(0) if self.devices else None

    def put(self, device) -> None:
        with self.lock:
            self.devices.append(device)
