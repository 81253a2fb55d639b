"""Family `popcount` on tensor cores of single bits: one matrix product, in which bit planes are rows.

    C[(pixel, j), (o, i)] = Σ_k popcount(A_j[pixel, k] & W_i[o, k])          k: words of (kh, kw, channels)
    S[pixel, o] = Σ_(i,j) c_i·d_j · C[(pixel, j), (o, i)]

          o0 i0  o0 i1  o1 i0  o1 i1
    p0 j0   ·      ·      ·      ·        the four numbers of a pixel and a channel lie in one tile,
    p0 j1   ·      ·      ·      ·        so the sum over plane pairs reads nothing from elsewhere
    p1 j0   ·      ·      ·      ·

Rows, columns and words are padded with zeros to whole tiles: they add nothing, and nobody reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import planes
from mpcompile.ir.grid import Grid
from mpcompile.kernels.late_tvm import te, tirx
from mpcompile.kernels.primitives import popcount
from mpcompile.kernels.weights import round_up

STEP = 8
"""Words of one step of a tensor core: 256 bits."""


@dataclass(frozen=True)
class RowTile:
    """What a block computes: so many `pixels` and `channels`, all planes of them."""

    pixels: int
    channels: int


def pack_weights(q: np.ndarray, grid: Grid, outputs: int) -> np.ndarray:
    """Weights int64 [O, C, KH, KW] to uint32 [outputs·planes, words]: a channel's planes are neighbouring rows; words of
    32 bits in the order (kh, kw, word), with 0 words to whole steps."""
    o = q.shape[0]
    bits = planes.to_planes(q, grid).transpose(1, 0, 3, 4, 2)  # [O, P, KH, KW, C]
    packed = planes.pack_words(bits).reshape(*bits.shape[:-1], -1).view(np.uint32).reshape(o, grid.planes, -1)
    full = np.zeros((outputs, grid.planes, round_up(packed.shape[2], STEP)), np.uint32)
    full[:o, :, : packed.shape[2]] = packed
    return full.reshape(outputs * grid.planes, -1)


def compute(
    tag: str,
    data,
    weight,
    tile: RowTile,
    pairs: tuple[tuple[int, ...], ...],
    kernel: tuple[int, int],
    height: int,
    width: int,
    strides,
    dilations,
    origin,
):
    """S0_1 [pixels, channels] int32 of data uint32 [HP, WP, PA, W] and a weight of `pack_weights`, after rows0_1 of the
    data and P0_1, the product. pairs[i][j] = c_i·d_j."""
    planes_w, planes_a, words = len(pairs), int(data.shape[2]), int(data.shape[3])
    used, depth = kernel[0] * kernel[1] * words, int(weight.shape[1])
    pixels = round_up(height * width, tile.pixels)

    def row(r, k):
        pixel, plane = r // planes_a, r % planes_a
        y, x = pixel // width * strides[0] + origin[0], pixel % width * strides[1] + origin[1]
        kh, kw = k // (kernel[1] * words) * dilations[0], k // words % kernel[1] * dilations[1]
        inside = [*([pixel < height * width] if pixels > height * width else []), *([k < used] if depth > used else [])]
        word = data[y + kh, x + kw, plane, k % words]
        return tirx.if_then_else(tirx.all(*inside), word, tirx.const(0, "uint32")) if inside else word

    rows = te.compute((pixels * planes_a, depth), row, name=f"rows{tag}")
    k = te.reduce_axis((0, depth), "k")
    product = te.compute(
        (pixels * planes_a, int(weight.shape[0])),
        lambda i, j: te.sum(popcount(rows[i, k] & weight[j, k]).astype("int32"), axis=k),
        name=f"P{tag}",
    )

    def added(pixel, o):
        total = None
        for i, of_plane in enumerate(pairs):
            for j, c in enumerate(of_plane):
                term = product[pixel * planes_a + j, o * planes_w + i]
                term = term * tirx.const(c, "int32") if c != 1 else term
                total = term if total is None else total + term
        return total

    return te.compute((pixels, int(weight.shape[0]) // planes_w), added, name=f"S{tag}")
