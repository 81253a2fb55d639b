"""Family `popcount` where the CPU counts words of 32 bits: definition and weight packing.

    Σ_k w̃_k·ã_k = Σ_s c_s · P_s        P_s = Σ_{(i,j) in slot s} ± Σ_k popcount(W_i & A_j)

Plane pairs (i, j) of equal |c_i·d_j| share an accumulator, a slot: w + a − 1 of them for two unsigned grids, not w·a.
The shift c_s comes after the reduction, never inside it. Lanes are output channels; 32 bits of an activation plane are
broadcast to all of them. (Lanes of 64 bits do no more work a vector, and half of it is lost on 32 channels or fewer.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import planes
from mpcompile.ir.grid import Grid
from mpcompile.kernels.late_tvm import te, tirx
from mpcompile.kernels.primitives import popcount

LANES = 16
"""Output channels of a vector: 32 bits each."""

MERGE_LIMIT = 16
"""Up to so many plane pairs are merged into slots and unrolled.

Above, where popcount never wins, a loop runs over pairs.
"""


@dataclass(frozen=True)
class Slots:
    """Accumulators: `of[i][j]` = (slot, sign) of weight plane i and activation plane j.

    `weights[s]` = c_s: positive where pairs are merged, the sign being in `of`; else of either sign.
    """

    of: tuple[tuple[tuple[int, int], ...], ...]
    weights: tuple[int, ...]

    @property
    def merged(self) -> bool:
        return len(self.of) * len(self.of[0]) <= MERGE_LIMIT

    @staticmethod
    def make(weight_planes: tuple[int, ...], activation_planes: tuple[int, ...]) -> Slots:
        """From the c_i and d_j."""
        pairs = [[c * d for d in activation_planes] for c in weight_planes]
        if len(weight_planes) * len(activation_planes) > MERGE_LIMIT:
            n = len(activation_planes)
            of = tuple(tuple((i * n + j, 1) for j in range(n)) for i in range(len(weight_planes)))
            return Slots(of, tuple(p for row in pairs for p in row))
        magnitudes = sorted({abs(p) for row in pairs for p in row})
        of = tuple(tuple((magnitudes.index(abs(p)), 1 if p > 0 else -1) for p in row) for row in pairs)
        return Slots(of, tuple(magnitudes))


def pack_weights(q: np.ndarray, grid: Grid, outputs: int) -> np.ndarray:
    """Weights int64 [O, C, KH, KW] to uint32 [outputs/LANES, KH, KW, W, planes, LANES], in words of 32 bits.

    The innermost axis is output channels, so that one vector load gives one plane's word of each. Channels past the last
    have 0 bits.
    """
    o = q.shape[0]
    bits = planes.to_planes(q, grid).transpose(1, 3, 4, 0, 2)  # [O, KH, KW, P, C]
    packed = planes.pack_words(bits).reshape(*bits.shape[:-1], -1).view(np.uint32)
    full = np.zeros((outputs, *packed.shape[1:]), np.uint32)  # [O, KH, KW, P, W]
    full[:o] = packed
    blocks = full.reshape(outputs // LANES, LANES, *full.shape[1:])
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 5, 4, 1))


def compute(name: str, data, weight, slots: Slots, height: int, width: int, strides, dilations, origin):
    """The reduction P[y, x, ob, s, lane] of data uint32 [HP, WP, PA, W] and weight [OB, KH, KW, W, PW, LANES].

    P is int32. `origin`: (y, x) in data of the first tap of output (0, 0).
    """
    blocks, kernel_h, kernel_w, word, planes_w, _ = (int(n) for n in weight.shape)
    planes_a = int(data.shape[2])
    kh, kw = te.reduce_axis((0, kernel_h), "kh"), te.reduce_axis((0, kernel_w), "kw")
    c = te.reduce_axis((0, word), "c")

    def count(y, x, ob, i, j, lane):
        act = data[y * strides[0] + kh * dilations[0] + origin[0], x * strides[1] + kw * dilations[1] + origin[1], j, c]
        return popcount(act & weight[ob, kh, kw, c, i, lane]).astype("int32")

    def merged(y, x, ob, s, lane):
        zero = tirx.const(0, "int32")
        total = None
        for i in range(planes_w):
            for j in range(planes_a):
                slot, sign = slots.of[i][j]
                pairs = count(y, x, ob, i, j, lane)
                term = tirx.Select(s == slot, pairs if sign > 0 else zero - pairs, zero)
                total = term if total is None else total + term
        return te.sum(total, axis=[kh, kw, c])

    def apart(y, x, ob, s, lane):
        return te.sum(count(y, x, ob, s // planes_a, s % planes_a, lane), axis=[kh, kw, c])

    shape = (height, width, blocks, len(slots.weights), LANES)
    return te.compute(shape, merged if slots.merged else apart, name=name)


def value(reduction, slots: Slots, y, x, o):
    """int32 Σ_k w̃·ã of output channel o: Σ_s c_s·P_s. That it fits, and each sum on the way, checks accumulators.py."""
    total = None
    for s, weight in enumerate(slots.weights):
        term = reduction[y, x, o // LANES, s, o % LANES]
        magnitude = abs(weight)
        if magnitude & (magnitude - 1) == 0:
            shift = magnitude.bit_length() - 1
            term = term << tirx.const(shift, "int32") if shift else term
        else:
            term = term * tirx.const(magnitude, "int32")
        if weight < 0:
            term = -term
        total = term if total is None else total + term
    return total
