"""What a tensor holds over the calibration inputs: its ends, and a histogram between them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 2048


@dataclass
class Histogram:
    """`low` and `high`: the least and greatest value. `counts`: int64 [BINS], of values between them."""

    low: float
    high: float
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, x: np.ndarray) -> None:
        """Values within the ends."""
        width = (self.high - self.low) / BINS
        if width <= 0:
            self.counts[0] += x.size
            return
        at = ((x.reshape(-1) - np.float32(self.low)) * np.float32(1 / width)).astype(np.int64)
        self.counts += np.bincount(np.clip(at, 0, BINS - 1), minlength=BINS)

    @property
    def values(self) -> np.ndarray:
        """float64 [BINS]: what stands for each bin: its middle, and 0 where 0 is the end: ReLUs leave many zeros."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        middles = (edges[1:] + edges[:-1]) / 2
        if self.low == 0:
            middles[0] = 0
        if self.high == 0:
            middles[-1] = 0
        return middles

    def percentile(self, share: float) -> tuple[float, float]:
        """The ends of the middle `share` (0..1) of all values; of what has no value below 0, of the greatest only."""
        cut = 1 - share
        reached = np.cumsum(self.counts) / max(1, self.counts.sum())
        edges = np.linspace(self.low, self.high, BINS + 1)
        top = edges[1 + min(BINS - 1, int(np.searchsorted(reached, 1 - cut)))]
        bottom = self.low if self.low >= 0 else edges[int(np.searchsorted(reached, cut, "right"))]
        return float(min(bottom, 0.0)), float(max(top, 0.0))
