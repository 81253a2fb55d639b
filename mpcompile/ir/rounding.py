"""QONNX's rounding modes on arrays, one definition for every reader and reference. numpy only."""

from __future__ import annotations

import numpy as np


def rounded(x: np.ndarray, mode: str) -> np.ndarray:
    """x rounded to whole numbers by one of `graph.ROUNDINGS`, in x's own dtype; exact, with no half added in floating
    point.

    half_up: half away from 0; half_down: half to 0; up: away from 0; down: to 0; sign: 1 where x ≥ 0, else 0.
    """
    x = np.asarray(x)
    if mode == "sign":
        return (x >= 0).astype(x.dtype)
    if mode == "half_even":
        return np.rint(x)
    if mode in ("ceil", "floor"):
        return getattr(np, mode)(x)
    toward_zero = np.trunc(x)
    rest = np.abs(x - toward_zero)  # exact: both are near each other (Sterbenz) or toward_zero is 0
    away = {"half_up": rest >= 0.5, "half_down": rest > 0.5, "up": rest > 0, "down": np.zeros_like(rest, bool)}[mode]
    return toward_zero + np.copysign(away, x).astype(x.dtype)
