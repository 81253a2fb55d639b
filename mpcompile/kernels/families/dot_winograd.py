"""Family `dot`, of 3×3 kernels by Winograd's F(2×2, 3×3) (winograd_form.py): definition.

V[e, ty, tx, c]               int16   Bᵀ·l·B of tile (ty, tx), e = 0..15
M[e, ty, tx, ob, lane]        int32   Σ_c V·U; U: dot_step.pack_weights of `transform`'s result, e outermost
D[ty, py, tx, px, ob, lane]   int32   Aᵀ·M·A / 4 = output (2·ty + py, 2·tx + px)
"""

from __future__ import annotations

from mpcompile.kernels.families.dot_step import axes
from mpcompile.kernels.families.winograd_form import PRODUCTS, TILE, tiles
from mpcompile.kernels.late_tvm import te, tirx


def compute(name: str, tiles_name: str, products_name: str, data, weight, height: int, width: int, origin):
    """D of data u8 [HP, WP, CP] and weight int16 [1, 16, OB, CP/2, lanes, 2]; stages `tiles_name` (V) and
    `products_name` (M) come before it.

    A last tile that leaves the map reads the last row or column again: outputs outside of the map depend on it alone.
    """
    rows, columns, channels = (int(n) for n in data.shape)
    _, _, blocks, steps, lanes, group = (int(n) for n in weight.shape)
    across, down = tiles(width), tiles(height)

    def level(ty, tx, i, j, c):
        y, x = ty * TILE + i + origin[0], tx * TILE + j + origin[1]
        y = tirx.min(y, rows - 1) if TILE * down + 2 + origin[0] > rows else y
        x = tirx.min(x, columns - 1) if TILE * across + 2 + origin[1] > columns else x
        return data[y, x, c].astype("int16")

    def transformed(e, ty, tx, c):
        return _bt(e // 4, lambda i: _bt(e % 4, lambda j: level(ty, tx, i, j, c)))

    v = te.compute((PRODUCTS, down, across, channels), transformed, name=tiles_name)
    c, g = axes((steps, group), ("c", "g"))
    m = te.compute(
        (PRODUCTS, down, across, blocks, lanes),
        lambda e, ty, tx, ob, lane: te.sum(
            v[e, ty, tx, c * group + g].astype("int32") * weight[0, e, ob, c, lane, g].astype("int32"), axis=[c, g]
        ),
        name=products_name,
    )
    return te.compute(
        (down, TILE, across, TILE, blocks, lanes),
        lambda ty, py, tx, px, ob, lane: (
            _at(px, lambda j: _at(py, lambda i: m[i * 4 + j, ty, tx, ob, lane])) >> tirx.const(2, "int32")
        ),
        name=name,
    )


def value(reduction, y, x, o):
    """int32 Σ_k w8·l of output channel o."""
    lanes = int(reduction.shape[5])
    return reduction[y // TILE, y % TILE, x // TILE, x % TILE, o // lanes, o % lanes]


def _bt(i, d):
    """Row i of Bᵀ on d(0..3); i is a constant once its loop is unrolled."""
    return tirx.Select(
        i == 0, d(0) - d(2), tirx.Select(i == 1, d(1) + d(2), tirx.Select(i == 2, d(2) - d(1), d(1) - d(3)))
    )


def _at(p, m):
    """Row p of Aᵀ on m(0..3)."""
    return tirx.Select(p == 0, m(0) + m(1) + m(2), m(1) - m(2) - m(3))
