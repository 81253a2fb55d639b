"""The float32 epilogue, instruction by instruction: each is one correctly rounded IEEE operation (see layer.py).

A NaN's level is not defined: targets disagree (here it is the lowest). The sign of a zero is not either: no level
depends on it.
"""

from __future__ import annotations

import numpy as np

from mpcompile.ir.layer import (
    Apply,
    Clamp,
    Divide,
    Fma,
    Instr,
    Largest,
    Load,
    LookUp,
    Plus,
    Round,
    Slope,
    Smallest,
    Times,
    Value,
)
from mpcompile.ir.rounding import rounded
from mpcompile.reference import smooth
from mpcompile.reference.fma import fma


def evaluate(epilogue: list[Instr], terms: list[np.ndarray]) -> list[np.ndarray]:
    """Every value of the epilogue, in order: float32 (O, H, W), or int64 levels for a Round.

    `terms` are the layer's terms, (O, H, W): integers or float32. Constants [O] or [1] broadcast over H and W.
    """
    values: list[np.ndarray] = []
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for instr in epilogue:
            values.append(_apply(instr, values, terms))
    return values


def _apply(instr: Instr, values: list[np.ndarray], terms: list[np.ndarray]) -> np.ndarray:
    match instr:
        case Load(term):
            return terms[term].astype(np.float32)
        case Fma(x, a, b):
            return fma(values[x], _constant(a), values[b] if isinstance(b, (int, np.integer)) else _constant(b))
        case Plus(x, y):
            return values[x] + values[y]
        case Times(x, y):
            return values[x] * values[y]
        case Largest(x, y):
            return np.maximum(values[x], values[y])
        case Smallest(x, y):
            return np.minimum(values[x], values[y])
        case Apply(x, function, parameters):
            return smooth.evaluate(function, values[x], parameters)
        case LookUp(level, table):
            return np.asarray(table, np.float32)[values[level]]
        case Divide(x, s):
            return values[x] / _constant(s)
        case Clamp(x, lo, hi):
            return clamp(values[x], lo, hi)
        case Slope(x, slope):
            zero = np.float32(0)
            return fma(np.minimum(values[x], zero), _constant(slope), np.maximum(values[x], zero))
        case Round(x, rounding, lo, hi):
            whole = clamp(rounded(values[x], rounding), lo, hi)
            return np.where(np.isnan(whole), lo, whole).astype(np.int64) - lo
        case Value(level, grid):
            return (grid.lo + grid.step * values[level]).astype(np.float32)
    raise TypeError(f"{type(instr).__name__} is no epilogue instruction")


def _constant(c: np.ndarray) -> np.ndarray:
    """float32 [O] or [1], or a scalar, to [O, 1, 1]."""
    return np.asarray(c, np.float32).reshape(-1, 1, 1)


def clamp(x: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """min(max(x, lo), hi) in float32."""
    return np.minimum(np.maximum(x, np.float32(lo)), np.float32(hi))
