"""How `lookup` (lookup.py) stores weights and splits activations into digits. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import planes
from mpcompile.ir.grid import Grid
from mpcompile.kernels.accumulators import uint8_steps, uint16_steps

LANES = 32
"""Output channels of a vector of AVX2: a byte each. Byte 2l is channel l, byte 2l + 1 channel 16 + l, so that 16-bit
sums of even and of odd bytes are vectors of neighbouring channels."""

GROUP = 4
"""Input channels that a table sums."""


@dataclass(frozen=True)
class Lookup:
    """Names of tensor intrinsics, and how levels are split.

    step: acc[16, 2] u8 += table[index[16, 2]]. widen: acc[2, 16] u16 += u8[16, 2]. fill: table[2, 16] u8 = sums of the
    subsets of a[2, 4] u8. digits of `bits` bits hold the activations' levels.
    lanes: output channels whose weights lie together.
    whole: where not "", the schedule computes all steps of a tile by one intrinsic of this kind. A step looks up in
    `tables` neighbouring tables, whose entries it adds to acc[lanes] in 16 bits, `most` steps at the most.
    """

    step: str
    widen: str
    fill: str
    digits: int
    bits: int
    lanes: int = LANES
    whole: str = ""
    tables: int = 1

    @property
    def most(self) -> int:
        """Entries that fit 8 bits together; of a `whole`, steps that fit 16 bits."""
        return uint16_steps(self.tables * _entry(self.bits)) if self.whole else entries(self.bits)

    @property
    def run(self) -> int:
        """Of a `whole` of one table, whose entries are added in 8 bits: so many fit. Else 0."""
        return entries(self.bits) if self.whole and self.tables == 1 else 0


def digit_bits(level_bits: int, products: int, widen: float) -> int | None:
    """The bits of a digit that cost least, of those with which four digits fit 8 bits and `products` of them 16.

    `products`: 1 where 16-bit sums are widened when they are full. widen: what adding 8-bit sums to 16-bit ones costs,
    in look-ups. None: too many products.
    """
    costs: dict[int, float] = {}
    for digits in range(1, level_bits + 1):
        bits = -(-level_bits // digits)
        if _entry(bits) <= 255 and products * ((1 << bits) - 1) <= 65535:
            costs.setdefault(bits, digits * (1 + widen / entries(bits)))  # more digits of as many bits hold nothing
    return min(costs, key=costs.__getitem__, default=None)


def entries(bits: int) -> int:
    """Table entries of digits of so many bits that fit 8 bits together."""
    return uint8_steps(_entry(bits))


def _entry(bits: int) -> int:
    """The greatest entry."""
    return GROUP * ((1 << bits) - 1)


def pack_weights(q: np.ndarray, grid: Grid, outputs: int, channels: int, form: Lookup) -> np.ndarray:
    """int64 [O, C, KH, KW] to uint8 [outputs/32, planes, KH, KW, channels/4, 16, 2], or for a `whole` to
    [outputs/lanes, planes, KH, KW, channels/4/tables, lanes, tables]: in table t the index is 16·t more.

    Channels past the last have 0 bits.
    """
    o, c, kh, kw = q.shape
    bits = np.zeros((outputs, grid.planes, kh, kw, channels), np.uint8)
    bits[:o, ..., :c] = planes.to_planes(q, grid).transpose(1, 0, 3, 4, 2)
    index = (bits.reshape(outputs, grid.planes, kh, kw, -1, GROUP) << np.arange(GROUP, dtype=np.uint8)).sum(-1)
    if form.whole:
        index = index.astype(np.uint8).reshape(outputs // form.lanes, form.lanes, grid.planes, kh, kw, -1, form.tables)
        index += 16 * np.arange(form.tables, dtype=np.uint8)
        return np.ascontiguousarray(index.transpose(0, 2, 3, 4, 5, 1, 6))
    blocks = index.astype(np.uint8).reshape(outputs // LANES, 2, 16, grid.planes, kh, kw, -1)
    return np.ascontiguousarray(blocks.transpose(0, 3, 4, 5, 6, 2, 1))
