"""What int8 can say of a weight grid, and grouped kernels without their groups. numpy only.

q = m·w8 + o        w8 int8, m ≥ 1, one o for all weights:  Σ q·k = m·Σ w8·k + o·Σ k   (k: the activations' levels)
"""

from __future__ import annotations

import numpy as np

from mpcompile.ir.grid import Grid


def dot_form(grid: Grid) -> tuple[int, int] | None:
    """(m, o), with o as near 0 as it can be; None where the grid has too many values for int8.

    unsigned(8) is shifted by 128; odd(8) becomes 2(u − 128) + 1; every grid inside −128..127 stays as it is.
    """
    if grid.lo >= -128 and grid.hi <= 127:
        return 1, 0
    if grid.levels > 256:
        return None
    least, most = grid.hi - 127 * grid.step, grid.lo + 128 * grid.step  # least ≤ o ≤ most, in steps from `least`
    nearest = least + grid.step * round(-least / grid.step)
    return grid.step, min(max(nearest, least), most)


def dot_weights(q: np.ndarray, grid: Grid) -> tuple[np.ndarray, int, int]:
    """(w8 int8 of q's shape, m, o) with q = m·w8 + o. Raises ValueError where the grid has no such form."""
    form = dot_form(grid)
    if form is None:
        raise ValueError(f"int8 has no room for the {grid.levels} values of {grid}")
    m, o = form
    w8, rest = np.divmod(np.asarray(q, np.int64) - o, m)
    if q.size and (rest.any() or w8.min() < -128 or w8.max() > 127):
        raise ValueError(f"weights are not on {grid}")
    return w8.astype(np.int8), m, o


def dense_from_groups(q: np.ndarray, groups: int) -> np.ndarray:
    """Block-diagonal [O, C, KH, KW] of a kernel of so many groups; `q` itself where there is one."""
    if groups == 1:
        return q
    o, c = q.shape[0] // groups, q.shape[1]
    dense = np.zeros((q.shape[0], c * groups, *q.shape[2:]), q.dtype)
    for g in range(groups):
        dense[g * o : (g + 1) * o, g * c : (g + 1) * c] = q[g * o : (g + 1) * o]
    return dense


def round_up(n: int, to: int) -> int:
    return -(-n // to) * to
