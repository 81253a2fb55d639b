"""Family `dot`, product by product: definition and weight packing.

An instruction takes `group` neighbouring channels at a time for `lanes` output channels: VPDPBUSD 4,
PMADDUBSW+PMADDWD 4, PMADDWD 2. What the architecture has, and which of them cannot saturate, its schedule file says
(a `DotInstr` record).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.kernels.accumulators import chunk
from mpcompile.kernels.late_tvm import te, tirx


@dataclass(frozen=True)
class DotInstr:
    """A dot-product step: acc[lanes] += Σ_{group} a[group]·w[lanes, group]; `intrin` is the tensor intrinsic's name.

    `data_dtype`: uint8, or, for a step that cannot take unsigned bytes, int16 or int8 (levels less `shift`): the rows
    that a tile reads are then converted once. `steps`: so many steps may be one (the schedule tensorizes
    `intrin`_x`steps` where they divide the input channels).
    `widen`: where not "", `intrin` adds to acc[lanes, 2] int16, each the sum of 2 neighbouring products, and `widen` adds
    those to acc[lanes] int32; at most `most` steps fit 16 bits.
    wrapping: the same step, whose sums are those mod 2³²; "" where there is none.
    whole: where not "", the schedule computes all steps of a tile by one intrinsic of this kind, which adds `run` steps
    in its narrowest lanes and, where `most` is not 0, as many in 16 bits.
    """

    intrin: str
    lanes: int
    group: int
    data_dtype: str
    weight_dtype: str
    shift: int = 0
    steps: int = 1
    widen: str = ""
    most: int = 0
    wrapping: str = ""
    whole: str = ""
    run: int = 0


def pack_weights(w8: np.ndarray, instr: DotInstr, outputs: int, channels: int) -> np.ndarray:
    """int [O, C, KH, KW] to [outputs/lanes, KH, KW, channels/group, lanes, group], zero-padded.

    The dtype is the instruction's.
    """
    o, c, kh, kw = w8.shape
    full = np.zeros((outputs, channels, kh, kw), instr.weight_dtype)
    full[:o, :c] = w8
    blocks = full.reshape(outputs // instr.lanes, instr.lanes, channels // instr.group, instr.group, kh, kw)
    return np.ascontiguousarray(blocks.transpose(0, 4, 5, 2, 1, 3))


def widen(name: str, data, instr: DotInstr):
    """The data in the dtype of the step; the schedule keeps it to the rows that are being read."""
    if instr.shift:  # 128, the sign bit
        return te.compute(data.shape, lambda *at: (data[at] ^ tirx.const(instr.shift, "uint8")).astype("int8"), name)
    return te.compute(data.shape, lambda *at: data[at].astype(instr.data_dtype), name=name)


def compute(
    name: str,
    data,
    weight,
    height: int,
    width: int,
    strides,
    dilations,
    origin,
    groups: int,
    instr: DotInstr,
    narrow_name: str,
):
    """The reduction D[y, x, ob, lane] int32 of data [HP, WP, CP] and weight [OB, KH, KW, C/group, lanes, group].

    Where `instr` widens, a stage `narrow_name` [y, x, ob, kho, kwo, co, lane, 2] int16 comes before it.
    """
    blocks, kernel_h, kernel_w, steps, lanes, group = (int(n) for n in weight.shape)
    per_group = blocks // groups

    def product(y, x, ob, lane, kh, kw, c, g, dtype):
        channel = c * group + g
        if groups > 1:
            channel = (ob // per_group) * (steps * group) + channel
        act = data[
            y * strides[0] + kh * dilations[0] + origin[0], x * strides[1] + kw * dilations[1] + origin[1], channel
        ]
        return act.astype(dtype) * weight[ob, kh, kw, c, lane, g].astype(dtype)

    if not instr.widen:
        kh, kw, c, g = axes((kernel_h, kernel_w, steps, group), ("kh", "kw", "c", "g"))
        return te.compute(
            (height, width, blocks, lanes),
            lambda y, x, ob, lane: te.sum(product(y, x, ob, lane, kh, kw, c, g, "int32"), axis=[kh, kw, c, g]),
            name=name,
        )
    inner = chunk(kernel_h, kernel_w, steps, instr.most)
    outer = (kernel_h // inner[0], kernel_w // inner[1], steps // inner[2])
    khi, kwi, ci, pair = axes((*inner, 2), ("khi", "kwi", "ci", "pair"))
    narrow = te.compute(
        (height, width, blocks, *outer, lanes, 2),
        lambda y, x, ob, kho, kwo, co, lane, half: te.sum(
            product(
                y, x, ob, lane, kho * inner[0] + khi, kwo * inner[1] + kwi, co * inner[2] + ci, half * 2 + pair, "int16"
            ),
            axis=[khi, kwi, ci, pair],
        ),
        name=narrow_name,
    )
    kho, kwo, co, half = axes((*outer, 2), ("kho", "kwo", "co", "half"))
    return te.compute(
        (height, width, blocks, lanes),
        lambda y, x, ob, lane: te.sum(
            narrow[y, x, ob, kho, kwo, co, lane, half].astype("int32"), axis=[kho, kwo, co, half]
        ),
        name=name,
    )


def axes(extents, names):
    """Reduction axes."""
    return [te.reduce_axis((0, n), name) for n, name in zip(extents, names)]
