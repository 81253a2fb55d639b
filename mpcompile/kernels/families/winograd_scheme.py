"""Winograd's (Toom and Cook's) schemes for short correlations in whole numbers, from their points. No TVM here.

    divisor·y = A·((G·g) ∘ (B·d))        y_i = Σ_k d_{i+k}·g_k of m outputs, r taps, m + r − 1 levels

A correlation is the transpose of a product of polynomials, which is known from its values at m + r − 2 numbers and its
leading coefficient, the value at infinity. What interpolation divides by is multiplied into the rows of G as far as
numbers may grow there, and into the columns of A; what is left of it is the divisor. In two dimensions the same is done
along both axes, and the divisor is the product of theirs.
(A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2016.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Scheme:
    """F(outputs, taps): `weights` is G [products, taps], `levels` B [products, size], `sums` A [outputs, products]."""

    outputs: int
    taps: int
    weights: Matrix
    levels: Matrix
    sums: Matrix
    divisor: int

    @property
    def size(self) -> int:
        """Levels that a tile reads."""
        return self.outputs + self.taps - 1

    @property
    def products(self) -> int:
        return len(self.weights)


@cache
def scheme(outputs: int, taps: int, points: tuple[int, ...], most: int) -> Scheme:
    """By so many different points, one for each level but the last, and infinity. `most`: what the entries of a row of G
    may add up to, beyond what its points make them."""
    size = outputs + taps - 1
    if len(set(points)) != size - 1:
        raise ValueError(f"F({outputs}, {taps}) needs {size - 1} different points and infinity, not {points}")
    steep = [[p**k for k in range(taps)] for p in points] + [[0] * (taps - 1) + [1]]
    value = [[p**k for k in range(outputs)] for p in points] + [[0] * (outputs - 1) + [1]]
    rows, divided = [], []
    for p in points:
        others = [q for q in points if q != p]
        factor = _product(p - q for q in others)
        rows.append([c * (1 if factor > 0 else -1) for c in _monic(others)] + [0])
        divided.append(abs(factor))
    rows.append(_monic(points))
    divided.append(1)
    common = lcm(*divided)
    spread = [_share(common // d, sum(map(abs, row)), most) for d, row in zip(divided, steep)]
    left = [Fraction(common, d * s) for d, s in zip(divided, spread)]
    sums = [[int(value[e][i] * left[e]) for e in range(size)] for i in range(outputs)]
    weights = [[c * s for c in row] for row, s in zip(steep, spread)]
    return Scheme(outputs, taps, _matrix(weights), _matrix(rows), _matrix(sums), common)


def _monic(roots) -> list[int]:
    """Coefficients of Π (x − root), from the lowest."""
    found = [1]
    for root in roots:
        found = [a - root * b for a, b in zip([0, *found], [*found, 0])]
    return found


def _product(factors) -> int:
    found = 1
    for factor in factors:
        found *= factor
    return found


def _share(factor: int, of: int, most: int) -> int:
    """The greatest divisor of a factor by which a row may be multiplied whose entries add up to `of`."""
    return max(n for n in range(1, factor + 1) if factor % n == 0 and (n == 1 or n * of <= most))


def _matrix(rows) -> Matrix:
    return tuple(tuple(row) for row in rows)
