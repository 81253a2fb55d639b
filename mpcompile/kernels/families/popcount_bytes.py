"""Family `popcount` where the CPU counts bytes (NEON's CNT) or nibbles (PSHUFB): definition and weight packing.

    Σ_k w̃_k·ã_k = Σ_(i,j) c_i·d_j · P_ij        P_ij = Σ_k popcount(W_i & A_j)

A vector is 4 output channels × 4 bytes: 32 channels of a pixel's plane are broadcast to all of them. Counts are added in
8-bit lanes, or in pairs in 16-bit lanes (UADALP), as many as cannot overflow, and then pairwise into 32 bits. None needs
a step across lanes: the 4 bytes of a lane end in that lane.
Plane pairs are reduced one after the other, so the whole register file holds accumulators of one pair.

PSHUFB counts the low nibbles of bytes whose high ones are 0. So that no shift and no mask is left in the loop, weights
are stored as low nibbles and, after them, as high ones, and a row's activations likewise: a stage computes them once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import planes
from mpcompile.ir.grid import Grid
from mpcompile.kernels.late_tvm import te, tirx
from mpcompile.kernels.primitives import popcount

BYTES = 4
"""Bytes of a lane: one step takes 32 channels."""

MOST_STEPS = {4: 31, 2: 4095}
"""Steps that a lane adds up: 8-bit lanes counts of up to 8 (31·8 = 248), 16-bit lanes two of them (4095·16 = 65520)."""

MOST_NIBBLES = 63
"""Steps of nibbles that an 8-bit lane adds up: 63·4 = 252."""

UNROLLED_PAIRS = 16
"""Up to so many plane pairs are unrolled. Above, where popcount never wins, loops run over them."""


@dataclass(frozen=True)
class ByteCount:
    """How an architecture counts.

    lanes: output channels that lie together in the packed weights.
    step: tensor intrinsic acc[lanes, parts] += popcount(a[4 bytes] & w[lanes, 4 bytes]), and
    widen: acc[lanes] int32 += Σ_parts acc[lanes, parts]; or, where widen is "", step adds to acc[lanes] int32.
    parts: 4, in uint8: each byte's counts by themselves; or 2, in uint16: two bytes' together.
    nibbles: step takes bytes of w that are at most 15, and the low nibbles of a's.
    whole: step is no intrinsic: the schedule has one for all steps of a tile.
    """

    step: str
    widen: str
    lanes: int
    parts: int = BYTES
    nibbles: bool = False
    whole: bool = False

    @property
    def most(self) -> int:
        """Steps that are added before they are widened."""
        return MOST_NIBBLES if self.nibbles else MOST_STEPS[self.parts]


def pack_weights(q: np.ndarray, grid: Grid, outputs: int, count: ByteCount) -> np.ndarray:
    """Weights int64 [O, C, KH, KW] to uint8 [outputs/lanes, planes, KH, KW, steps, lanes, 4].

    There are 2·words steps, or as many of low nibbles and then of high ones. Channels past the last have 0 bits.
    """
    lanes = count.lanes
    o, c, kh, kw = q.shape
    bits = planes.to_planes(q, grid).transpose(1, 0, 3, 4, 2)  # [O, P, KH, KW, C]
    full = np.zeros((outputs, grid.planes, kh, kw, planes.words(c) * planes.word_bytes(c)), np.uint8)
    full[:o] = planes.pack_words(bits).reshape(o, grid.planes, kh, kw, -1)
    full = np.concatenate([full & 15, full >> 4], -1) if count.nibbles else full
    blocks = full.reshape(outputs // lanes, lanes, grid.planes, kh, kw, -1, BYTES)
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 4, 5, 1, 6))


def chunk(kernel_h: int, kernel_w: int, steps: int, most: int) -> tuple[int, int, int]:
    """How much of the reduction (kh, kw, step) is added up before it is widened: the most that cannot overflow, of all
    rows or one, all columns or one, and a divisor of a tap's steps."""
    sizes = [
        (h, w, s)
        for h in {1, kernel_h}
        for w in {1, kernel_w}
        for s in range(1, steps + 1)
        if steps % s == 0 and h * w * s <= most
    ]
    return max(sizes, key=lambda n: (n[0] * n[1] * n[2], n))


def nibbles(name: str, data):
    """Planes u8 [HP, WP, PA, bytes] as [HP, WP, PA, 2·bytes]: their low nibbles (with the high ones still there), then
    their high ones; the schedule keeps it to the rows that are being read."""
    *shape, size = (int(n) for n in data.shape)
    return te.compute(
        (*shape, 2 * size),
        lambda y, x, j, b: tirx.if_then_else(
            b < size, data[y, x, j, b % size], data[y, x, j, b % size] >> tirx.const(4, "uint8")
        ),
        name=name,
    )


def compute(
    name: str, narrow_name: str, data, weight, count: ByteCount, height: int, width: int, strides, dilations, origin
):
    """The reduction P[y, x, ob, i, j, lane] int32 of data u8 [HP, WP, PA, 4·steps] and a weight of `pack_weights`.

    Where counts are widened, a stage `narrow_name` [y, x, ob, i, j, kho, kwo, so, lane, part] comes before it.
    """
    blocks, planes_w, kernel_h, kernel_w, steps, lanes, _ = (int(n) for n in weight.shape)
    shape = (height, width, blocks, planes_w, int(data.shape[2]), lanes)

    def counted(y, x, ob, i, j, lane, byte, kh, kw, step):
        act = data[
            y * strides[0] + kh * dilations[0] + origin[0],
            x * strides[1] + kw * dilations[1] + origin[1],
            j,
            step * BYTES + byte,
        ]
        return popcount(act & weight[ob, i, kh, kw, step, lane, byte])

    if not count.widen:
        byte = te.reduce_axis((0, BYTES), "byte")
        kh, kw = te.reduce_axis((0, kernel_h), "kh"), te.reduce_axis((0, kernel_w), "kw")
        step = te.reduce_axis((0, steps), "step")
        return te.compute(
            shape,
            lambda y, x, ob, i, j, lane: te.sum(
                counted(y, x, ob, i, j, lane, byte, kh, kw, step).astype("int32"), axis=[kh, kw, step, byte]
            ),
            name=name,
        )

    inner = chunk(kernel_h, kernel_w, steps, count.most)
    outer = (kernel_h // inner[0], kernel_w // inner[1], steps // inner[2])
    khi, kwi, si = (te.reduce_axis((0, n), axis) for n, axis in zip(inner, ("khi", "kwi", "si")))
    share, dtype = BYTES // count.parts, {4: "uint8", 2: "uint16"}[count.parts]
    b = [te.reduce_axis((0, share), "b")] if share > 1 else []

    def narrow(y, x, ob, i, j, kho, kwo, so, lane, part):
        byte = part * share + b[0] if b else part
        counts = counted(y, x, ob, i, j, lane, byte, kho * inner[0] + khi, kwo * inner[1] + kwi, so * inner[2] + si)
        return te.sum(counts if dtype == "uint8" else counts.astype(dtype), axis=[khi, kwi, si, *b])

    added = te.compute((*shape[:5], *outer, lanes, count.parts), narrow, name=narrow_name)
    part = te.reduce_axis((0, count.parts), "part")
    kho, kwo, so = (te.reduce_axis((0, n), axis) for n, axis in zip(outer, ("kho", "kwo", "so")))
    return te.compute(
        shape,
        lambda y, x, ob, i, j, lane: te.sum(
            added[y, x, ob, i, j, kho, kwo, so, lane, part].astype("int32"), axis=[kho, kwo, so, part]
        ),
        name=name,
    )


def value(reduction, weights: tuple[tuple[int, ...], ...], y, x, o):
    """int32 Σ_k w̃·ã of output channel o; weights[i][j] = c_i·d_j."""
    lanes = int(reduction.shape[5])
    total = None
    for i, row in enumerate(weights):
        for j, weight in enumerate(row):
            term = reduction[y, x, o // lanes, i, j, o % lanes]
            magnitude = abs(weight)
            shift = magnitude.bit_length() - 1
            if magnitude == 1 << shift:
                term = term << tirx.const(shift, "int32") if shift else term
            else:
                term = term * tirx.const(magnitude, "int32")
            term = -term if total is None and weight < 0 else term
            total = term if total is None else total - term if weight < 0 else total + term
    return total
