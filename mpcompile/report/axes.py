"""Axes of the figures: where a value lies, and which round values are named. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOG_FROM = 6.0
"""Positive values that span a greater factor get a logarithmic axis."""


@dataclass(frozen=True)
class Axis:
    """From `lo` at pixel `start` to `hi` at pixel `end`, evenly in `scale` of the value."""

    lo: float
    hi: float
    start: float
    end: float
    ticks: tuple[float, ...]
    scale: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        """The pixel; values outside lie on the end."""
        a, b = self.scale(self.lo), self.scale(self.hi)
        part = (self.scale(min(max(value, self.lo), self.hi)) - a) / (b - a)
        return round(self.start + part * (self.end - self.start), 2)


def positive(values: Sequence[float], start: float, end: float, margin: float = 0.08) -> Axis:
    """Of values > 0: logarithmic where they span more than LOG_FROM, else linear."""
    lo, hi = min(values), max(values)
    if hi / lo > LOG_FROM:
        lo, hi = lo * (lo / hi) ** margin, hi * (hi / lo) ** margin
        return Axis(lo, hi, start, end, log_ticks(lo, hi), math.log)
    spread = (hi - lo) or hi / 2
    lo, hi = max(lo - margin * spread, lo / 2), hi + margin * spread
    return Axis(lo, hi, start, end, linear_ticks(lo, hi))


def shares(values: Sequence[float], count: int, start: float, end: float) -> Axis:
    """Of accuracies over `count` images: linear, or by the logarithm of the error where they span more than 15 %."""
    lo, hi = min(values), max(values)
    if hi - lo <= 0.15:
        spread = max(hi - lo, 4 / count, 0.004)
        lo, hi = max(0.0, lo - 0.15 * spread), min(1.0, hi + 0.15 * spread)
        return Axis(lo, hi, start, end, linear_ticks(lo, hi))
    least = 0.5 / count  # an accuracy of 1 lies half an image below it

    def scale(value: float) -> float:
        return -math.log(max(1 - value, least))

    errors = [e for d in (1.0, 0.1, 0.01, 0.001, 1e-4) for e in (0.8 * d, 0.5 * d, 0.2 * d, 0.1 * d)]
    lo, hi = 1 - min(1.0, (1 - lo) * 1.15), 1 - max(least, (1 - hi) * 0.8)
    return Axis(lo, hi, start, end, tuple(1 - e for e in errors if lo <= 1 - e <= hi), scale)


def linear_ticks(lo: float, hi: float, about: int = 6) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten within lo..hi."""
    raw = (hi - lo) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return tuple(i * step for i in range(math.ceil(lo / step - 1e-9), math.floor(hi / step + 1e-9) + 1))


def log_ticks(lo: float, hi: float) -> tuple[float, ...]:
    """1, 2 and 5 times powers of ten within lo..hi."""
    powers = range(math.floor(math.log10(lo)), math.ceil(math.log10(hi)) + 1)
    return tuple(m * 10.0**p for p in powers for m in (1, 2, 5) if lo <= m * 10.0**p <= hi)
