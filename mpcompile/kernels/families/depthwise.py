"""Family `depthwise`: one filter a channel, int32 lanes over channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import grid as grids
from mpcompile.ir.formats import channel_pad
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.accumulators import dot_reach
from mpcompile.kernels.families.family import Expressed, Family, Given, PackedPart
from mpcompile.kernels.late_tvm import te, tirx
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.kernels.weights import round_up
from mpcompile.targets import Target

# Products share nothing between channels: no dot instruction helps, one multiply-add a lane.
_SHARE = 0.25
_OUTPUT = 40.0
"""Work beside the inner loop, for each output value, in products of a dot instruction."""


@dataclass(frozen=True, kw_only=True)
class DepthwiseSpec(PartSpec):
    family = "depthwise"


def cycles(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> float | None:
    """One input channel for each output channel; activations of at most 256 levels, weights as they are in int16."""
    outputs, per_group, kh, kw = part.q.shape
    if not (part.groups > 1 and part.groups == outputs and per_group == 1 and in_grid.levels <= 256):
        return None
    work = round_up(outputs, 16) * kh * kw
    return output[0] * output[1] * (work / _SHARE + _OUTPUT * outputs) / target.dot_macs_per_cycle


def describe(given: Given) -> PackedPart[DepthwiseSpec]:
    part, grid = given.part, given.grid
    weight = pack_weights(part.q, channel_pad(given.channels))
    spec = DepthwiseSpec(
        **given.common(part.groups),
        weight_shape=weight.shape,
        weight_dtype=str(weight.dtype),
        multiplier=grid.step,
    )
    return PackedPart(spec, weight, dot_reach(part.q, grid.levels - 1, grid.step, 0), grid.lo)


def pack_weights(q: np.ndarray, outputs: int) -> np.ndarray:
    """int [C, 1, KH, KW] to int16 [KH, KW, outputs], zero-padded."""
    c, _, kh, kw = q.shape
    full = np.zeros((kh, kw, outputs), np.int16)
    full[..., :c] = q[:, 0].transpose(1, 2, 0)
    return full


def _compute(name: str, data, weight, height: int, width: int, strides, dilations, origin):
    """D[y, x, o] int32 of data u8 [HP, WP, CP] and weight int16 [KH, KW, OP]; CP and OP are the same number."""
    kernel_h, kernel_w, channels = (int(n) for n in weight.shape)
    kh, kw = te.reduce_axis((0, kernel_h), "kh"), te.reduce_axis((0, kernel_w), "kw")

    def product(y, x, o):
        act = data[y * strides[0] + kh * dilations[0] + origin[0], x * strides[1] + kw * dilations[1] + origin[1], o]
        return te.sum(act.astype("int32") * weight[kh, kw, o].astype("int32"), axis=[kh, kw])

    return te.compute((height, width, channels), product, name=name)


def compute(tag: str, spec: DepthwiseSpec, data, weight, layer: LayerSpec) -> Expressed:
    """D0_1 [y, x, channel], of as many channels as are stored."""
    reduced = _compute(f"D{tag}", data, weight, *layer.place(spec))
    channels = spec.weight_shape[2]

    def value(y, x, o):
        if channels >= layer.padded:
            return reduced[y, x, o]
        return tirx.if_then_else(o < channels, reduced[y, x, tirx.min(o, channels - 1)], 0)

    return Expressed(PartStages(spec, f"D{tag}"), value)


def sample(tensor: str, channels: int, pads: tuple[int, int, int, int]) -> ContractPart:
    """A 1×1 filter a channel."""
    grid = grids.twos_complement(8)
    q = np.random.default_rng(0).choice(grid.values, (channels, 1, 1, 1))
    return ContractPart(tensor, q, grid, pads=pads, groups=channels)


DEPTHWISE = Family(
    name="depthwise",
    reads="codes",
    cycles=cycles,
    describe=describe,
    compute=compute,
    step=lambda spec: "int16",
    sample=sample,
    only=True,
)
