"""Which grid a tensor gets: by its ends, by a percentile, or by the least mean squared error.

What is never below 0 gets an unsigned grid; else two's complement or one with a zero point, whichever is nearer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mpcompile.ptq.grids import Grid, signed, unsigned
from mpcompile.ptq.histogram import Histogram

METHODS = ("mse", "percentile", "minmax")
SHARES = np.linspace(0.02, 1.0, 99)
"""Of the greatest value, that the search of one end tries."""
COARSE = np.geomspace(0.01, 1.0, 20)
"""The same of both ends at once, before finer steps around the best."""
FINER = 3
"""How often the steps become a third."""
LEAST = 1e-8
"""A scale for what is always 0."""
WEIGHT_SHARES = np.linspace(0.2, 1.0, 81)


def activation_grid(seen: Histogram, bits: int, method: str, share: float) -> Grid:
    """The grid of an activation at so many bits. `share` (0..1) is the percentile's."""
    if max(abs(seen.low), abs(seen.high)) < LEAST:
        return unsigned(bits, LEAST)
    low, high = (min(seen.low, 0.0), max(seen.high, 0.0))
    if method == "percentile":
        low, high = seen.percentile(share)
        low, high = (low, high) if high - low > LEAST else (min(seen.low, 0.0), max(seen.high, 0.0))
    made = list(_by_mse(seen, low, high, bits) if method == "mse" else _by_ends(low, high, bits))
    return min(made, key=lambda grid: _error(grid, seen))


def _by_ends(low: float, high: float, bits: int) -> Iterable[Grid]:
    levels = (1 << bits) - 1
    if low >= 0:
        yield unsigned(bits, high / levels)
        return
    if bits > 1:
        yield _around_zero(low, high, bits)
    yield _with_zero(low, high, bits)


def _around_zero(low: float, high: float, bits: int) -> Grid:
    half = 1 << (bits - 1)
    return signed(bits, np.array([max(-low / half, high / (half - 1))]))


def _by_mse(seen: Histogram, low: float, high: float, bits: int) -> Iterable[Grid]:
    """The best of each kind."""
    if low >= 0:
        yield _best((unsigned(bits, share * high / ((1 << bits) - 1)) for share in SHARES), seen)
        return
    if bits > 1:
        whole = _around_zero(low, high, bits)
        yield _best((signed(bits, share * whole.scale) for share in SHARES), seen)
    yield _both_ends(seen, low, high, bits)


def _both_ends(seen: Histogram, low: float, high: float, bits: int) -> Grid:
    """The best with a zero point."""
    step, below, above = COARSE[1] / COARSE[0], COARSE, COARSE
    found: tuple[float, Grid] | None = None
    for _ in range(1 + FINER):
        tried = [(i, j, _with_zero(low * i, high * j, bits)) for i in below for j in above]
        errors = [_error(grid, seen) for *_, grid in tried]
        at = int(np.argmin(errors))
        if found is None or errors[at] < found[0]:
            found = errors[at], tried[at][2]
        step = step ** (1 / 3)
        below, above = (np.unique(np.clip(share * step ** np.arange(-2, 3), 0.005, 1.0)) for share in tried[at][:2])
    assert found is not None
    return found[1]


def _with_zero(low: float, high: float, bits: int) -> Grid:
    levels = (1 << bits) - 1
    scale = max((high - low) / levels, LEAST)
    return unsigned(bits, scale, int(np.clip(np.rint(-low / scale), 0, levels)))


def _best(grids: Iterable[Grid], seen: Histogram) -> Grid:
    return min(grids, key=lambda grid: _error(grid, seen))


def _error(grid: Grid, seen: Histogram) -> float:
    """Σ counts·(grid(x) − x)²."""
    x = seen.values
    s, z = float(grid.scale[0]), grid.zero
    q = (np.rint(np.clip(x / s + z, grid.low, grid.high)) - z) * s
    return float(seen.counts @ (q - x) ** 2)


def weight_grid(weight: np.ndarray, axis: int, bits: int, method: str) -> Grid:
    """Two's complement with a scale for each output channel (`axis`): the one that leaves the least squared error, or the
    one that reaches all weights. One bit: −1 and +1 times the mean of their sizes."""
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float32)
    shape = [1] * weight.ndim
    shape[axis] = len(rows)
    if bits == 1:
        scale = np.abs(rows).mean(1)
    else:
        half = 1 << (bits - 1)
        whole = np.maximum(-rows.min(1) / half, rows.max(1) / (half - 1))
        scale = whole if method != "mse" else _least_error(rows, bits, whole)
    scale = np.where(scale > LEAST, scale, 1.0)  # of a channel of zeros
    return signed(bits, scale.reshape(shape))


def _least_error(rows: np.ndarray, bits: int, reach: np.ndarray) -> np.ndarray:
    half = 1 << (bits - 1)
    best, error = reach.copy(), np.full(len(rows), np.inf)
    for share in WEIGHT_SHARES[::-1]:
        scale = np.where(reach > LEAST, share * reach, 1.0)[:, None].astype(np.float32)
        off = ((np.clip(np.rint(rows / scale), -half, half - 1) * scale - rows) ** 2).sum(1)
        better = off < error
        best[better], error[better] = scale[better, 0], off[better]
    return best
