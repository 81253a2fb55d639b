"""A tile of family `winograd`: a scheme along each axis, the weights that it multiplies, and the proof that its numbers
fit. numpy only.

    Y = Aᵧ·((Gᵧ·w·Gₓᵀ) ∘ (Bᵧ·(l − middle)·Bₓᵀ))·Aₓᵀ = divisor·y        of each channel, whose products are added up

Sums are int32 and may wrap: Y is known mod 2³². The odd part of the divisor has an inverse there; of its power of two,
2ˢ, an exact shift is left, which gives y where −2^(31−s) ≤ y < 2^(31−s). Levels l count from the middle of their range,
so that |y| ≤ Σ|w|·middle: what a filter's own weights decide.

Operands are int16 (WinogradTile), or bytes (ByteTile) where few bits leave room for what the transforms add: weights
int8, and levels uint8, which 128 is added to. That adds Aᵧ·(128·Σ Gᵧ·w·Gₓᵀ)·Aₓᵀ to Y, over all channels: a table of
each output channel and place in a tile (`excess`), which is taken off again before the division.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from mpcompile.kernels.families.winograd_scheme import Matrix, Scheme, scheme

INT16 = (1 << 15) - 1
BITS = 32
"""Of the sums."""


@dataclass(frozen=True)
class WinogradTile:
    """`rows` is the scheme down a column of levels, `columns` that along a row."""

    rows: Scheme
    columns: Scheme

    bits: ClassVar[int] = 16
    """Of the operands."""
    level_dtype: ClassVar[str] = "int16"
    weight_dtype: ClassVar[str] = "int16"
    added: ClassVar[int] = 0
    """To each transformed level."""

    @property
    def outputs(self) -> tuple[int, int]:
        return self.rows.outputs, self.columns.outputs

    @property
    def products(self) -> int:
        return self.rows.products * self.columns.products

    @cached_property
    def shift(self) -> int:
        """s of the divisor's 2ˢ."""
        divisor = self.rows.divisor * self.columns.divisor
        return (divisor & -divisor).bit_length() - 1

    @cached_property
    def inverse(self) -> int:
        """Of the divisor's odd part, mod 2³²; 0 ≤ inverse < 2³²."""
        return pow(self.rows.divisor * self.columns.divisor >> self.shift, -1, 1 << BITS)

    def count(self, height: int, width: int) -> int:
        """Tiles that cover a map of outputs."""
        return -(-height // self.outputs[0]) * -(-width // self.outputs[1])

    def transform(self, w8: np.ndarray) -> np.ndarray:
        """[O, C, KH, KW] to int64 [O, C, 1, products], row by row."""
        down, along = np.array(self.rows.weights, np.int64), np.array(self.columns.weights, np.int64)
        return (down @ w8.astype(np.int64) @ along.T).reshape(*w8.shape[:2], 1, self.products)

    def holds(self, max_weight: int, max_level: int) -> bool:
        """Whether both operands of every product fit, for weights and levels of at most so much."""
        levels = _steepest(self.rows.levels) * _steepest(self.columns.levels)
        return self.holds_weights(max_weight) and levels * middle(max_level) <= INT16

    def holds_weights(self, max_weight: int) -> bool:
        """The same of the weights alone."""
        return _steepest(self.rows.weights) * _steepest(self.columns.weights) * max_weight <= INT16

    def sums(self, max_level: int) -> int:
        """What the absolute weights of a filter may add up to, at most."""
        return ((1 << BITS - 1 - self.shift) - 1) // middle(max_level)


@dataclass(frozen=True)
class ByteTile(WinogradTile):
    """Its levels are uint8, 128 more than they are, its weights int8."""

    bits: ClassVar[int] = 8
    level_dtype: ClassVar[str] = "uint8"
    weight_dtype: ClassVar[str] = "int8"
    added: ClassVar[int] = 128

    def holds(self, max_weight: int, max_level: int) -> bool:
        return self.holds_weights(max_weight) and self.holds_levels(max_level)

    def holds_weights(self, max_weight: int) -> bool:
        return _steepest(self.rows.weights) * _steepest(self.columns.weights) * max_weight <= 127

    def holds_levels(self, max_level: int) -> bool:
        """Of levels −middle to max_level − middle."""
        below = middle(max_level)
        above = max_level - below
        for down in self.rows.levels:
            for right in self.columns.levels:
                factors = [a * b for a in down for b in right]
                plus, minus = sum(f for f in factors if f > 0), -sum(f for f in factors if f < 0)
                if plus * above + minus * below > 127 or plus * below + minus * above > 128:
                    return False
        return True

    def excess(self, w8: np.ndarray) -> np.ndarray:
        """int32 [rows, columns, O] of weights [O, C, KH, KW]: what is too much in Y, mod 2³²."""
        of_all = self.transform(w8).sum((1, 2)).reshape(-1, self.rows.products, self.columns.products)
        down, along = np.array(self.rows.sums, np.int64), np.array(self.columns.sums, np.int64)
        excess = (down @ (self.added * of_all) @ along.T).transpose(1, 2, 0)
        return np.ascontiguousarray(excess).astype(np.uint32).view(np.int32)


def middle(max_level: int) -> int:
    """What is taken from levels 0..max_level: they are at most so far from 0 then."""
    return (max_level + 1) // 2


def _steepest(matrix: Matrix) -> int:
    return max(sum(map(abs, row)) for row in matrix)


MOST = 15
"""What a row of G may add up to: 15 · 15 · 128 fits int16."""

_FOUR, _TWO = scheme(4, 3, (0, 1, -1, 2, -2), MOST), scheme(2, 3, (0, 1, -1), MOST)
TILES = (
    WinogradTile(_FOUR, _FOUR),
    WinogradTile(_TWO, _FOUR),
    WinogradTile(_FOUR, _TWO),
    WinogradTile(_TWO, _TWO),
)
"""For 3×3 kernels; (4, 4), (2, 4), (4, 2) and (2, 2) outputs."""

_PAIR, _THREE, _LEAST = scheme(4, 3, (0, 1, -1), 0, (0,)), scheme(3, 3, (0, 1, -1, 2), 0), scheme(2, 3, (0, 1, -1), 0)
BYTE_TILES = (
    ByteTile(_PAIR, _PAIR),
    ByteTile(_THREE, _THREE),
    ByteTile(_LEAST, _LEAST),
    ByteTile(_LEAST, _PAIR),
    ByteTile(_PAIR, _LEAST),
)
"""The same in bytes; (4, 4), (3, 3), (2, 2), (2, 4) and (4, 2) outputs."""
