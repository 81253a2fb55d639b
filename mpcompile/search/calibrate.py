"""The latency table's sum against whole networks as measured: their difference is learned. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENOUGH = 4
"""Networks from which a slope is fitted; of fewer only their mean difference is taken."""
SLOPES = 0.5, 2.0
"""A slope outside is no calibration but a table of something else: then only the difference is taken."""


@dataclass(frozen=True)
class Calibration:
    """measured ≈ slope·predicted + offset, in seconds."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, predicted: float) -> float:
        return self.slope * predicted + self.offset


def calibrate(predicted: Sequence[float], measured: Sequence[float]) -> Calibration:
    """From whole networks' predictions and measurements, in seconds; the identity without any."""
    x, y = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if not x.size:
        return Calibration()
    if x.size >= ENOUGH and np.ptp(x) > 0.05 * x.mean():
        slope, offset = np.polyfit(x, y, 1)
        if SLOPES[0] <= slope <= SLOPES[1]:
            return Calibration(float(slope), float(offset))
    return Calibration(1.0, float((y - x).mean()))
