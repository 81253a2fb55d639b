"""The product of two quantized tensors from their planes, term by term: why popcounts are enough.

With w = w̃ + o_w, w̃ = Σ_i c_i·W_i, and a = ã + o_a, ã = Σ_j d_j·A_j (planes W_i, A_j; offsets o):

    Σ_k w_k·a_k = Σ_i Σ_j c_i·d_j·popcount(W_i & A_j)  +  o_w·Σ_k ã_k  +  o_a·Σ_k w̃_k  +  K·o_w·o_a

`dot` says the same of 8-bit numbers: with w = m_w·w8 + o_w and a = m_a·k + o_a (w8 int8, k a level),

    Σ_k w_k·a_k = m_w·m_a·Σ_k w8_k·k_k  +  o_w·m_a·Σ_k k_k  +  o_a·m_w·Σ_k w8_k  +  K·o_w·o_a

Padding stands for a = 0. Where the grid has a code for 0 the halo holds it and the formula is right as it is. Where it
has none (bipolar), the halo holds 0 bits (level 0), which the formula takes for a = o_a, so what it adds too much is
o_a·Σ w over the kernel positions that lie in the padding: the border term, a constant per output channel and border.

Written to be read and tested, not to be fast; `ops.contract` is the plain product that these equal.
"""

from __future__ import annotations

import numpy as np

from mpcompile.ir import planes
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.reference.ops import as_map, output_size

_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.int64)


def popcount(words: np.ndarray) -> np.ndarray:
    """Ones in packed words uint8 [..., W, 8]: int64 [...]."""
    return _ONES[words].sum((-2, -1))


def by_popcount(q_w: np.ndarray, grid_w: Grid, q_a: np.ndarray, grid_a: Grid) -> np.ndarray:
    """Σ_k w[o, k]·a[n, k], int64 [O, N], from values int [O, K] and [N, K]."""
    k = q_w.shape[-1]
    w_planes, a_planes = planes.to_planes(q_w, grid_w), planes.to_planes(q_a, grid_a)
    w_words, a_words = planes.pack_words(w_planes), planes.pack_words(a_planes)
    w_tilde = planes.from_planes(w_planes, grid_w).sum(-1) - k * grid_w.offset  # Σ_k w̃  [O]
    a_tilde = planes.from_planes(a_planes, grid_a).sum(-1) - k * grid_a.offset  # Σ_k ã  [N]
    total = np.zeros((len(q_w), len(q_a)), np.int64)
    for c, w in zip(grid_w.plane_weights, w_words):
        for d, a in zip(grid_a.plane_weights, a_words):
            total += c * d * popcount(w[:, None] & a[None])
    total += grid_w.offset * a_tilde[None, :]
    total += grid_a.offset * w_tilde[:, None]
    return total + k * grid_w.offset * grid_a.offset


def by_dot(q_w: np.ndarray, form: tuple[int, int], q_a: np.ndarray, grid_a: Grid) -> np.ndarray:
    """Σ_k w[o, k]·a[n, k], int64 [O, N], from int8 weights and uint8 levels.

    `form` = (m_w, o_w): any for which every (w − o_w)/m_w is a whole number of int8 (ValueError where one is not).
    """
    k = q_w.shape[-1]
    m_w, o_w = form
    w8, rest = np.divmod(q_w.astype(np.int64) - o_w, m_w)
    if rest.any() or w8.min() < -128 or w8.max() > 127:
        raise ValueError(f"the weights are not {m_w}·w8 + {o_w} with w8 in int8")
    level = grid_a.level(q_a).astype(np.uint8).astype(np.int64)
    m_a, o_a = grid_a.step, grid_a.lo
    return (
        m_w * m_a * (w8 @ level.T) + o_w * m_a * level.sum(1)[None, :] + o_a * m_w * w8.sum(1)[:, None] + k * o_w * o_a
    )


def border_term(part: ContractPart, offset: int, size: tuple[int, int]) -> np.ndarray:
    """int64 [O, HO, WO]: offset·Σ w over the kernel positions that fall on padding, for an input of `size` (H, W).

    `offset` is what the halo stands for where the grid has no 0: o_a for planes (0 bits), lo for codes (level 0).
    """
    (h, w), (kh, kw) = size, part.q.shape[2:]
    _ho, rows = _inside(h, kh, part.strides[0], part.pads[0], part.pads[2], part.dilations[0])
    _wo, cols = _inside(w, kw, part.strides[1], part.pads[1], part.pads[3], part.dilations[1])
    outside = ~(rows[:, None, :, None] & cols[None, :, None, :])  # [HO, WO, KH, KW]
    return offset * np.tensordot(part.q.sum(1), outside.astype(np.int64), ((1, 2), (2, 3)))


def conv(q_x: np.ndarray, grid_a: Grid, part: ContractPart, form: tuple[int, int] | None = None) -> np.ndarray:
    """`ops.contract` as kernels do it: a halo, the product by popcounts (with a `form`: by int8), the border term."""
    x = as_map(q_x)
    top, left, bottom, right = part.pads
    pads = ((0, 0), (top, bottom), (left, right))
    # What the halo holds, as a value: the code for 0, or what 0 bits (level 0) stand for.
    halo = 0 if grid_a.has_zero else grid_a.lo if form else grid_a.offset
    padded = np.pad(x, pads, constant_values=halo)
    o, per_group, kh, kw = part.q.shape
    ho = output_size(x.shape[1], kh, part.strides[0], top, bottom, part.dilations[0])
    wo = output_size(x.shape[2], kw, part.strides[1], left, right, part.dilations[1])
    out = np.zeros((o, ho, wo), np.int64)
    for g in range(part.groups):
        of = slice(g * o // part.groups, (g + 1) * o // part.groups)
        inputs = padded[g * per_group : (g + 1) * per_group]
        for i in range(kh):
            for j in range(kw):
                y, z = i * part.dilations[0], j * part.dilations[1]
                at = inputs[:, y:, z:][:, :: part.strides[0], :: part.strides[1]][:, :ho, :wo]
                pixels = at.reshape(per_group, -1).T
                w = part.q[of, :, i, j]
                product = by_dot(w, form, pixels, grid_a) if form else by_popcount(w, part.grid, pixels, grid_a)
                out[of] += product.reshape(-1, ho, wo)
    return out if grid_a.has_zero else out - border_term(part, halo, x.shape[1:])


def pixel_sums(q_x: np.ndarray, grid_a: Grid, beside: str) -> np.ndarray:
    """int64 [H, W]: what a producer emits beside its planes (Σ_c ã) or codes (Σ_c k), halo left out."""
    if beside == "codes":
        return grid_a.level(q_x).sum(0)
    return (as_map(q_x).astype(np.int64) - grid_a.offset).sum(0)


def _inside(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> tuple[int, np.ndarray]:
    """(N, bool [N, K]): output length, and whether position k of output n's window lies on the input."""
    n = output_size(size, kernel, stride, before, after, dilation)
    at = np.arange(n)[:, None] * stride + np.arange(kernel) * dilation - before
    return n, (at >= 0) & (at < size)
