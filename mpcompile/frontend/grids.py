"""The grid for a range of integers: as few planes as the range needs, and no offset where that is possible."""

from __future__ import annotations

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.grid import MAX_BITS, Grid


def span(q: np.ndarray) -> tuple[int, int, int]:
    """(lo, hi, step) of the values of an int64 array; step 2 where all have the same odd parity (no 0 can be among
    them)."""
    low, high = int(q.min()), int(q.max())
    step = 2 if low != high and (q % 2 == 1).all() else 1
    return low, high, step


def tightest(low: int, high: int, step: int, where: str, max_bits: int = MAX_BITS) -> Grid:
    """The grid low, low+step, …, high. Raises ModelError, beginning with `where`, above `max_bits`.

    Fewest planes first; among those plain unsigned or two's complement (offset 0), else powers of two and an offset
    (odd, bipolar, zero points).
    """
    levels = (high - low) // step + 1
    bits = max(1, (levels - 1).bit_length())
    if bits > max_bits:
        raise ModelError(f"{where}: a grid of {bits} bits; 1 to {max_bits} would be accepted")
    powers = tuple(1 << i for i in range(bits))
    if step == 1 and low >= 0 and high < 1 << bits:
        return Grid(powers, 0, low, high)
    if step == 1 and low >= -(1 << (bits - 1)) and high < 1 << (bits - 1):
        return Grid(powers[:-1] + (-powers[-1],), 0, low, high)
    return Grid(tuple(step << i for i in range(bits)), low, low, high, step)
