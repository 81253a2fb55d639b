"""Family `winograd`: definition.

H[p, ty, tx, x, c]               int16   Bᵧ·l of column x of tile (ty, tx)
V[e, ty, tx, c]                  int16   Bᵧ·(l − middle)·Bₓᵀ, e = p·(products along x) + q
F[ob, c, p, b, lane, g]          int16   Gᵧ·w of column b of a kernel, of channel group·c + g
U[e, ob, c, lane, g]             int16   Gᵧ·w·Gₓᵀ
M[e, ty, tx, ob, lane]           int32   Σ_c V·U
Z[py, ty, tx, q, ob, lane]       int32   Aᵧ·M
D[ty, py, tx, px, ob, lane]      int32   Aᵧ·M·Aₓᵀ / divisor = output (ty·rows + py, tx·columns + px)

In bytes, H and V are uint8, V is 128 more, and F and U are int8: what wraps on the way is right in the end. D is
(Aᵧ·M·Aₓᵀ − excess[py, px, ob·lanes + lane]) / divisor then.

M, Z and what D adds up may wrap. TVM tells LLVM that sums of int32 do not, so each is taken in 64 bits and cut off again
(`_wrapped`), of which LLVM makes the one addition of 32 bits that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

from mpcompile.kernels.families.dot_step import axes
from mpcompile.kernels.families.winograd_codes import Codes
from mpcompile.kernels.families.winograd_scheme import Matrix
from mpcompile.kernels.families.winograd_tile import WinogradTile
from mpcompile.kernels.late_tvm import te, tirx
from mpcompile.kernels.wrapping import wrapped_difference, wrapped_product, wrapped_sum

Terms = Callable[[int], Any]
"""Which of the numbers that a row of a matrix is multiplied with → expression."""


def compute(
    name: str,
    tile: WinogradTile,
    middle: int,
    data,
    weight,
    excess,
    height: int,
    width: int,
    origin,
    made: bool,
    codes: Codes | None,
):
    """D of data u8 [HP, WP, CP] and weight, which is U, or, where U is made, int8 [OB, C/group, KH·KW, lanes, group], or
    the same as `codes` in bytes. excess: int32 [rows, columns, channels] of a tile in bytes, else None. Stages `name`_half
    (H), `name`_tiles (V), where U is made `name`_filters (F) and `name`_weights (U), `name`_products (M) and `name`_sums
    (Z) come before it.

    A last tile that leaves the map reads the last row or column again: outputs outside of the map depend on it alone.
    """
    rows, columns, channels = (int(n) for n in data.shape)
    (high, wide), size = tile.outputs, (tile.rows.size, tile.columns.size)
    down, across = -(-height // high), -(-width // wide)
    along = tile.columns.products
    narrow = _Plain(tile.level_dtype)
    u = _transformed(name, tile, weight, codes) if made else weight
    _, blocks, steps, lanes, group = (int(n) for n in u.shape)

    def level(ty, tx, i, j, c):
        y, x = ty * high + i + origin[0], tx * wide + j + origin[1]
        y = tirx.min(y, rows - 1) if (down - 1) * high + size[0] + origin[0] > rows else y
        x = tirx.min(x, columns - 1) if (across - 1) * wide + size[1] + origin[1] > columns else x
        return data[y, x, c].astype(tile.level_dtype)

    half = te.compute(
        (tile.rows.products, down, across, size[1], channels),
        lambda p, ty, tx, x, c: _row(p, tile.rows.levels, lambda i: level(ty, tx, i, x, c), narrow),
        name=f"{name}_half",
    )

    def transformed(e, ty, tx, c):
        p, q = e // along, e % along
        found = _row(q, tile.columns.levels, lambda j: half[p, ty, tx, j, c], narrow)
        for i, down_ in enumerate(tile.rows.levels):  # of levels that are all `middle`: most rows add up to 0
            for j, right in enumerate(tile.columns.levels):
                if sum(down_) * sum(right):
                    taken = sum(down_) * sum(right) * middle
                    found = tirx.Select(e == i * along + j, narrow.less(found, taken), found)
        return found + tirx.const(tile.added, tile.level_dtype) if tile.added else found

    v = te.compute((tile.products, down, across, channels), transformed, name=f"{name}_tiles")
    c, g = axes((steps, group), ("c", "g"))
    m = te.compute(
        (tile.products, down, across, blocks, lanes),
        lambda e, ty, tx, ob, lane: te.sum(
            v[e, ty, tx, c * group + g].astype("int32") * u[e, ob, c, lane, g].astype("int32"), axis=[c, g]
        ),
        name=f"{name}_products",
    )
    z = te.compute(
        (high, down, across, along, blocks, lanes),
        lambda py, ty, tx, q, ob, lane: _row(
            py, tile.rows.sums, lambda p: m[p * along + q, ty, tx, ob, lane], _wrapped
        ),
        name=f"{name}_sums",
    )

    def output(ty, py, tx, px, ob, lane):
        found = _row(px, tile.columns.sums, lambda q: z[py, ty, tx, q, ob, lane], _wrapped)
        found = found if excess is None else _wrapped.minus(found, excess[py, px, ob * lanes + lane])
        found = _wrapped.times(found, tile.inverse) if tile.inverse != 1 else found
        return found >> tirx.const(tile.shift, "int32") if tile.shift else found

    return te.compute((down, high, across, wide, blocks, lanes), output, name=name)


def _transformed(name: str, tile: WinogradTile, weight, codes: Codes | None):
    """U of weights, or of their codes."""
    blocks, steps, _, lanes, group = (int(n) for n in weight.shape)
    high, wide, along = tile.rows.taps, tile.columns.taps, tile.columns.products
    narrow = _Plain(tile.weight_dtype)

    def tap(ob, c, a: int, b, lane, g):
        if codes is None:
            return weight[ob, c, a * wide + b, lane, g].astype(tile.weight_dtype)
        byte, shift = codes.place(a * wide + b, high * wide)
        code = weight[ob, c, byte, lane, g] >> shift.astype("uint8") & tirx.const((1 << codes.bits) - 1, "uint8")
        found = code.astype(tile.weight_dtype)
        found = narrow.times(found, codes.step) if codes.step != 1 else found
        return narrow.less(found, -codes.least)

    f = te.compute(
        (blocks, steps, tile.rows.products, wide, lanes, group),
        lambda ob, c, p, b, lane, g: _row(p, tile.rows.weights, lambda a: tap(ob, c, a, b, lane, g), narrow),
        name=f"{name}_filters",
    )
    return te.compute(
        (tile.products, blocks, steps, lanes, group),
        lambda e, ob, c, lane, g: _row(
            e % along, tile.columns.weights, lambda b: f[ob, c, e // along, b, lane, g], narrow
        ),
        name=f"{name}_weights",
    )


def value(reduction, y, x, o):
    """int32 Σ_k w8·(l − middle) of output channel o."""
    _, high, _, wide, _, lanes = (int(n) for n in reduction.shape)
    return reduction[y // high, y % high, x // wide, x % wide, o // lanes, o % lanes]


# -- rows of a matrix --------------------------------------------------------------------------------------------------
class _Plain:
    """Arithmetic of int16, int8 or uint8, which LLVM is not told anything about: it wraps."""

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.modulus = 1 << int(dtype.removeprefix("u").removeprefix("int"))

    def plus(self, a, b):
        return a + b

    def minus(self, a, b):
        return a - b

    def times(self, a, n: int):
        return a * tirx.const(n, self.dtype)

    def less(self, a, n: int):
        return a - tirx.const(n % self.modulus if self.dtype.startswith("u") else n, self.dtype)


class _Wrapped:
    """The same mod 2³²."""

    def plus(self, a, b):
        return wrapped_sum(a, b)

    def minus(self, a, b):
        return wrapped_difference(a, b)

    def times(self, a, n: int):
        return wrapped_product(a, n)


_wrapped = _Wrapped()


def _row(i, matrix: Matrix, terms: Terms, how):
    """Row i of matrix · terms; i is a constant once its loop is unrolled."""
    found = [_combination(row, how) for row in _by_pairs(matrix, terms, how)]
    whole = found[-1]
    for j in reversed(range(len(found) - 1)):
        whole = tirx.Select(i == j, found[j], whole)
    return whole


def _combination(row, how):
    """Σ coefficient · expression, a positive one first; what all coefficients have in common is multiplied once."""
    common = gcd(*(coefficient for coefficient, _ in row))
    if common > 1 and len(row) > 1:
        return how.times(_combination([(c // common, term) for c, term in row], how), common)
    row = sorted(row, key=lambda one: one[0] < 0)
    coefficient, term = row[0]
    whole = term if coefficient == 1 else how.times(term, coefficient)
    for coefficient, term in row[1:]:
        scaled = term if abs(coefficient) == 1 else how.times(term, abs(coefficient))
        whole = how.plus(whole, scaled) if coefficient > 0 else how.minus(whole, scaled)
    return whole


def _by_pairs(matrix: Matrix, terms: Terms, how) -> list[list]:
    """Each row as (coefficient, expression): what two columns, or two rows, have in common but for a sign is written as
    one expression, which LLVM computes once."""
    count = len(matrix[0])
    pairs = _paired(
        [[row[j] for row in matrix] for j in range(count)], lambda a, b: all(abs(x) == abs(y) for x, y in zip(a, b))
    )
    if pairs:
        twin = dict(pairs)
        single = [j for j in range(count) if j not in twin and j not in twin.values()]
        both = {j: (how.plus(terms(j), terms(k)), how.minus(terms(j), terms(k))) for j, k in pairs}
        return [
            [(row[j], terms(j)) for j in single if row[j]]
            + [(row[j], both[j][row[j] != row[k]]) for j, k in pairs if row[j]]
            for row in matrix
        ]
    found = [[(c, terms(j)) for j, c in enumerate(row) if c] for row in matrix]
    for e, f in _paired(matrix, lambda a, b: all(abs(x) == abs(y) for x, y in zip(a, b))):
        even = [(a, terms(j)) for j, (a, b) in enumerate(zip(matrix[e], matrix[f])) if a and a == b]
        odd = [(a, terms(j)) for j, (a, b) in enumerate(zip(matrix[e], matrix[f])) if a and a != b]
        if even and odd:
            even, odd = _combination(even, how), _combination(odd, how)
            found[e], found[f] = [(1, even), (1, odd)], [(1, even), (-1, odd)]
    return found


def _paired(rows, alike) -> list[tuple[int, int]]:
    found, used = [], set()
    for e, a in enumerate(rows):
        for f in range(e + 1, len(rows)):
            if not used & {e, f} and any(a) and a != rows[f] and alike(a, rows[f]):
                found.append((e, f))
                used |= {e, f}
    return found
