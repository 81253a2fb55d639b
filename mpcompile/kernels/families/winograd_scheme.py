"""Winograd's (Toom and Cook's) schemes for short correlations in whole numbers, from their points. No TVM here.

    divisor·y = A·((G·g) ∘ (B·d))        y_i = Σ_k d_{i+k}·g_k of m outputs, r taps, m + r − 1 levels

A correlation is the transpose of a product of polynomials, which is known from its values at m + r − 2 numbers and its
leading coefficient, the value at infinity. What interpolation divides by is multiplied into the rows of G as far as
numbers may grow there, and into the columns of A; what is left of it is the divisor. In two dimensions the same is done
along both axes, and the divisor is the product of theirs.

A product may also be known from its residues mod x² + bx + 1, by three products in the place of two: numbers grow less.
(A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2016; S. Winograd: Arithmetic Complexity of
Computations, 1980, for polynomials other than linear ones.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, reduce
from math import gcd, lcm

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
def scheme(outputs: int, taps: int, points: tuple[int, ...], most: int, pairs: tuple[int, ...] = ()) -> Scheme:
    """By so many different points, one for each level but the last, and infinity. `most`: what the entries of a row of G
    may add up to, beyond what its points make them. pairs: b of x² + bx + 1, −1 ≤ b ≤ 1, each in the place of two points:
    the two complex numbers where it is 0. Their product is a product mod that, which takes three: of the residues'
    constants, of their slopes, and of their values at 1, or at −1 where b is positive."""
    size = outputs + taps - 1
    if len(set(points)) + 2 * len(set(pairs)) != size - 1 or len(points) + 2 * len(pairs) != size - 1:
        raise ValueError(
            f"F({outputs}, {taps}) needs {size - 1} different points and infinity, not {points}"
            + f" and {pairs}" * bool(pairs)
        )
    factors = [[-p, 1] for p in points] + [[1, b, 1] for b in pairs]
    rows = [_Row.at(p, outputs, taps) for p in points]
    rows += [row for b in pairs for row in _Row.of_pair(b, outputs, taps)]
    columns = [column for i in range(len(factors)) for column in _interpolated(factors, i, size)]
    rows.append(_Row([0] * (taps - 1) + [1], [0] * (outputs - 1) + [1]))
    columns.append(([int(c) for c in reduce(_times, factors, [1])], Fraction(1)))
    common = lcm(*(factor.denominator for _, factor in columns))
    over = [int(common * factor) for _, factor in columns]
    spread = [_share(f, sum(map(abs, row.weights)), most) for f, row in zip(over, rows, strict=True)]
    sums = [[row.sums[i] * (f // s) for row, f, s in zip(rows, over, spread)] for i in range(outputs)]
    weights = [[c * s for c in row.weights] for row, s in zip(rows, spread)]
    return Scheme(outputs, taps, _matrix(weights), _matrix(c for c, _ in columns), _matrix(sums), common)


@dataclass(frozen=True)
class _Row:
    """What a polynomial of `taps` coefficients, and one of `outputs`, are multiplied with for one of the products."""

    weights: list[int]
    sums: list[int]

    @staticmethod
    def at(point: int, outputs: int, taps: int) -> _Row:
        return _Row(*([point**k for k in range(n)] for n in (taps, outputs)))

    @staticmethod
    def of_pair(b: int, outputs: int, taps: int) -> list[_Row]:
        """Constant, slope and a value of the residue mod x² + bx + 1."""
        powers = [(1, 0), (0, 1)]
        while len(powers) < max(outputs, taps):
            low, high = powers[-1]
            powers.append((-high, low - b * high))  # x² = −bx − 1
        return [
            _Row(*([u * low + v * high for low, high in powers[:n]] for n in (taps, outputs))) for u, v in _third(b)
        ]


def _third(b: int) -> tuple[tuple[int, int], ...]:
    """Where residues u + vx are taken: at 0, infinity, and 1 or −1."""
    return (1, 0), (0, 1), (1, -1 if b > 0 else 1)


def _interpolated(factors: list[list[int]], i: int, size: int) -> list[tuple[list[int], Fraction]]:
    """What each product that belongs to factor i adds to the coefficients of the whole: integers without a common
    divisor, and the positive factor that they are to be multiplied with."""
    own, others = factors[i], reduce(_times, (f for k, f in enumerate(factors) if k != i), [1])
    inverse = _inverse(others, own)
    if len(own) == 2:
        residues = [[1]]
    else:  # the product of two residues is e₀ + (±(e₂ − e₀ − e₁))x + e₁x², x² = −bx − 1
        sign = -1 if own[1] > 0 else 1
        residues = [[1, -sign], [-1, -sign - own[1]], [0, sign]]
    return [_primitive(_padded(_times(others, _residue(_times(inverse, r), own)), size)) for r in residues]


def _inverse(f: list[int], own: list[int]) -> list[Fraction]:
    """Of f mod `own`, which is linear or quadratic."""
    if len(own) == 2:
        return [1 / Fraction(_residue(f, own)[0])]
    (a, c), (b, d) = _residue(f, own), _residue([0, *_residue(f, own)], own)  # f and x·f
    determinant = Fraction(a * d - b * c)
    return [d / determinant, -c / determinant]


def _residue(f, own) -> list:
    """f mod the monic `own`, as many coefficients as it has at most."""
    f = list(f) + [0] * max(0, len(own) - 1 - len(f))
    while len(f) >= len(own):
        top = f.pop()
        for k in range(len(own) - 1):
            f[len(f) - len(own) + 1 + k] -= top * own[k]
    return f


def _times(a, b) -> list:
    """Of two polynomials, coefficients from the lowest."""
    found = [0] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            found[i + j] += x * y
    return found


def _padded(row: list, size: int) -> list:
    return [*row, *([0] * (size - len(row)))]


def _primitive(row: list) -> tuple[list[int], Fraction]:
    """Integers without a common divisor, and the positive factor that makes `row` of them."""
    common = lcm(*(Fraction(c).denominator for c in row))
    whole = [int(c * common) for c in row]
    divisor = gcd(*whole)
    return [c // divisor for c in whole], Fraction(divisor, common)


def _share(factor: int, of: int, most: int) -> int:
    """The greatest divisor of a factor by which a row may be multiplied whose entries add up to `of`."""
    return max(n for n in range(1, factor + 1) if factor % n == 0 and (n == 1 or n * of <= most))


def _matrix(rows) -> Matrix:
    return tuple(tuple(row) for row in rows)
