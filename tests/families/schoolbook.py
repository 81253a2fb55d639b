"""A kernel family as a contributor adds one: codes times int16 weights, product by product. It is slow and simple.

What a family needs is here and in schoolbook_loops.py; nothing else knows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import grid as grids
from mpcompile.ir.formats import channel_pad
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.accumulators import dot_reach
from mpcompile.kernels.families.family import Expressed, Family, Given, PackedPart, sample
from mpcompile.kernels.late_tvm import te
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.targets import Target


@dataclass(frozen=True, kw_only=True)
class SchoolbookSpec(PartSpec):
    family = "schoolbook"


def cycles(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> float | None:
    """Activations of at most 256 levels, no groups: a product a cycle."""
    if in_grid.levels > 256 or part.groups > 1:
        return None
    return float(output[0] * output[1] * part.q.size)


def describe(given: Given) -> PackedPart[SchoolbookSpec]:
    """Weights as int16 [KH, KW, C, padded]."""
    q, grid = given.part.q, given.grid
    weight = np.zeros((*q.shape[2:], channel_pad(q.shape[1]), given.padded), np.int16)
    weight[:, :, : q.shape[1], : q.shape[0]] = q.transpose(2, 3, 1, 0)
    spec = SchoolbookSpec(
        **given.common(1), weight_shape=weight.shape, weight_dtype=str(weight.dtype), multiplier=grid.step
    )
    return PackedPart(spec, weight, dot_reach(q, grid.levels - 1, grid.step, 0), grid.lo)


def compute(tag: str, spec: SchoolbookSpec, data, weight, layer: LayerSpec) -> Expressed:
    """S0_1 [y, x, o] int32 of levels [HP, WP, C]."""
    height, width, strides, dilations, origin = layer.place(spec)
    kh, kw, c = (te.reduce_axis((0, n), name) for n, name in zip(spec.weight_shape, ("kh", "kw", "c")))

    def product(y, x, o):
        at = y * strides[0] + kh * dilations[0] + origin[0], x * strides[1] + kw * dilations[1] + origin[1], c
        return te.sum(data[at].astype("int32") * weight[kh, kw, c, o].astype("int32"), axis=[kh, kw, c])

    reduced = te.compute((height, width, layer.padded), product, name=f"S{tag}")
    return Expressed(PartStages(spec, f"S{tag}"), lambda y, x, o: reduced[y, x, o])


SCHOOLBOOK = Family(
    name="schoolbook",
    reads="codes",
    cycles=cycles,
    describe=describe,
    compute=compute,
    step=lambda spec: "int16",
    sample=lambda tensor, channels, pads: sample(tensor, channels, pads, grids.twos_complement(8)),
)
