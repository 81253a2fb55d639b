"""How `lookup` (lookup.py) stores weights and splits activations into digits. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile import planes
from mpcompile.grid import Grid
from mpcompile.kernels.accumulators import uint8_steps

LANES = 32
"""Output channels of a vector: a byte each. Byte 2l is channel l, byte 2l + 1 channel 16 + l, so that 16-bit sums of
even and of odd bytes are vectors of neighbouring channels."""

GROUP = 4
"""Input channels that a table sums."""


@dataclass(frozen=True)
class Lookup:
    """Names of tensor intrinsics, and how levels are split.

    step: acc[16, 2] u8 += table[index[16, 2]]. widen: acc[2, 16] u16 += u8[16, 2]. fill: table[2, 16] u8 = sums of the
    subsets of a[2, 4] u8. digits of `bits` bits hold the activations' levels.
    """

    step: str
    widen: str
    fill: str
    digits: int
    bits: int

    @property
    def most(self) -> int:
        """Entries that fit 8 bits together."""
        return entries(self.bits)


WIDEN = 3
"""What adding 8-bit sums to 16-bit ones costs, in look-ups."""


def digit_bits(level_bits: int, products: int) -> int | None:
    """The bits of a digit that cost least, of those with which four digits fit 8 bits and `products` of them 16.

    None: too many products.
    """
    costs = {}
    for digits in range(1, level_bits + 1):
        bits = -(-level_bits // digits)
        if GROUP * ((1 << bits) - 1) <= 255 and products * ((1 << bits) - 1) <= 65535:
            costs[bits] = digits * (1 + WIDEN / entries(bits))
    return min(costs, key=costs.get, default=None)


def entries(bits: int) -> int:
    """Table entries of digits of so many bits that fit 8 bits together."""
    return uint8_steps(GROUP * ((1 << bits) - 1))


def pack_weights(q: np.ndarray, grid: Grid, outputs: int, channels: int) -> np.ndarray:
    """int64 [O, C, KH, KW] to uint8 [outputs/32, planes, KH, KW, channels/4, 16, 2]; channels past the last have 0 bits."""
    o, c, kh, kw = q.shape
    bits = np.zeros((outputs, grid.planes, kh, kw, channels), np.uint8)
    bits[:o, ..., :c] = planes.to_planes(q, grid).transpose(1, 0, 3, 4, 2)
    index = (bits.reshape(outputs, grid.planes, kh, kw, -1, GROUP) << np.arange(GROUP, dtype=np.uint8)).sum(-1)
    blocks = index.astype(np.uint8).reshape(outputs // LANES, 2, 16, grid.planes, kh, kw, -1)
    return np.ascontiguousarray(blocks.transpose(0, 3, 4, 5, 6, 2, 1))
