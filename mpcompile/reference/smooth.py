"""The operations of ir/smooth.py in numpy: each one float32 operation, rounded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpcompile.ir import smooth
from mpcompile.reference.fma import fma


class _Numpy:
    def const(self, value: float) -> np.ndarray:
        return np.asarray(value, np.float32)

    def fma(self, x, a, b) -> np.ndarray:
        return fma(x, a, b)

    def times(self, x, y) -> np.ndarray:
        return x * y

    def minus(self, x, y) -> np.ndarray:
        return x - y

    def divide(self, x, y) -> np.ndarray:
        return x / y

    def least(self, x, y) -> np.ndarray:
        return np.minimum(x, y)

    def greatest(self, x, y) -> np.ndarray:
        return np.maximum(x, y)

    def below(self, x, limit: float, then, otherwise) -> np.ndarray:
        return np.where(x < np.float32(limit), then, otherwise)

    def power_of_two(self, whole) -> np.ndarray:
        bits = np.asarray(whole, np.float32).view(np.int32)
        return ((bits - np.float32(smooth.NEAREST).view(np.int32) + 127) << 23).astype(np.int32).view(np.float32)

    def once(self, x) -> np.ndarray:
        return x


def evaluate(name: str, x: np.ndarray, parameters: Sequence[float] = ()) -> np.ndarray:
    """float32: the function at each x, float32."""
    with np.errstate(all="ignore"):  # of NaN and infinities nothing is defined
        return np.asarray(smooth.apply(name, _Numpy(), np.asarray(x, np.float32), parameters), np.float32)
