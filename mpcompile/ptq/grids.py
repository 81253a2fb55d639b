"""Grids of quantizers: unsigned, around zero, or with a zero point, as QONNX writes them, and how far off they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """u = round(clamp(x/scale + zero, low, high)); the real value is scale·(u − zero). `scale`: float32 [1], or of a value
    for each output channel, in the shape that broadcasts over the weights."""

    bits: int
    scale: np.ndarray
    zero: float
    low: int
    high: int
    signed: bool

    def codes(self, x: np.ndarray) -> np.ndarray:
        """float32, whole numbers: those of QONNX's IntQuant. One signed bit: −1 or +1, +1 where x ≥ 0."""
        if self.bipolar:
            return np.where(x >= 0, np.float32(1), np.float32(-1))
        return np.rint(np.clip(x / self.scale + np.float32(self.zero), self.low, self.high)).astype(np.float32)

    def real(self, codes: np.ndarray) -> np.ndarray:
        return ((codes - np.float32(self.zero)) * self.scale).astype(np.float32)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.real(self.codes(x))

    @property
    def bipolar(self) -> bool:
        return self.signed and self.bits == 1


def unsigned(bits: int, scale: float, zero: int = 0) -> Grid:
    return Grid(bits, np.array([scale], np.float32), float(zero), 0, (1 << bits) - 1, False)


def signed(bits: int, scale: np.ndarray) -> Grid:
    """Two's complement, one scale or one a channel."""
    half = 1 << (bits - 1)
    low, high = (-1, 1) if bits == 1 else (-half, half - 1)
    return Grid(bits, np.asarray(scale, np.float32), 0.0, low, high, True)
