"""Family `dot`: levels as unsigned bytes times signed weights, accumulated in int32.

Σ_k w_k·a_k = m_w·m_a·Σ_k w8_k·l_k + …      w = m_w·w8 + o_w,  a = m_a·l + lo_a  (level l in 0..255)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import grid as grids
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.accumulators import dot_reach, int16_steps
from mpcompile.kernels.families import dot_step
from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.family import Expressed, Family, Given, PackedPart, sample
from mpcompile.kernels.spec import IMAGE_CHANNELS, LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.kernels.weights import dense_from_groups, dot_form, dot_weights, round_up
from mpcompile.targets import Target

_OUTPUT = 40.0
"""Work beside the inner loop, for each output value, in products."""


@dataclass(frozen=True, kw_only=True)
class DotSpec(PartSpec):
    family = "dot"
    instr: DotInstr


@dataclass(frozen=True)
class DotStages(PartStages[DotSpec]):
    """narrow: of the 16-bit sums, where they are widened. widened: of the data in another dtype, where the step takes no
    unsigned bytes."""

    narrow: str
    widened: str


def cycles(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> float | None:
    """Activations of at most 256 levels, weights m·int8 + o, or, where groups > 1, as they are in int16; groups that do
    not fill vectors are spread over a dense kernel."""
    if in_grid.levels > 256 or (part.groups == 1 and dot_form(part.grid) is None):
        return None
    outputs, per_group, kh, kw = part.q.shape
    pixels = output[0] * output[1]
    depth = per_group if _groups_fill_vectors(part) else per_group * part.groups
    steps16 = _steps16(part, in_grid)
    work = round_up(outputs, 16) * kh * kw * round_up(depth, 4)
    return pixels * (work + round_up(outputs, 16) * _OUTPUT) / target.dot_rate(steps16)


def _steps16(part: ContractPart, in_grid: Grid) -> int:
    """How many sums of two products fit 16 bits (Target.dot_rate), by the grids."""
    lo, hi = part.grid.lo, part.grid.hi
    form = dot_form(part.grid)
    if part.groups == 1 and form is not None:
        multiplier, offset = form
        lo, hi = (lo - offset) // multiplier, (hi - offset) // multiplier
    return int16_steps(in_grid.levels - 1, (lo, hi)) if lo >= -128 and hi <= 127 else 0


def _groups_fill_vectors(part: ContractPart) -> bool:
    """Whether no vector of outputs, and no step of input channels, straddles two groups."""
    return part.q.shape[0] // part.groups % 16 == 0 and part.q.shape[1] % 4 == 0


def describe(given: Given) -> PackedPart[DotSpec]:
    """Groups are spread over a dense kernel where they do not fill vectors. Those of the model need a sum of their own
    channels, which nobody stores: their weights stay whole, in int16."""
    part, grid_a = given.part, given.grid
    whole = part.groups > 1 and _groups_fill_vectors(part) and given.padded == given.channels
    groups = part.groups if whole else 1
    q = part.q if whole else dense_from_groups(part.q, part.groups)
    w8, m, o = dot_weights(q, part.grid) if part.groups == 1 else (q, 1, 0)
    multiplier, offset = m * grid_a.step, o * grid_a.step
    reach = dot_reach(w8, grid_a.levels - 1, multiplier, offset)
    span = (int(w8.min()), int(w8.max()))
    instr = given.architecture.dot_instruction(grid_a.levels - 1, span, given.padded)
    depth = round_up(q.shape[1], instr.group * (instr.steps if groups == 1 else 1))
    depth = min(depth, round_up(q.shape[1], 4)) if q.shape[1] <= IMAGE_CHANNELS else depth
    weight = dot_step.pack_weights(w8, instr, round_up(given.padded, instr.lanes), depth)
    spec = DotSpec(
        **given.common(groups),
        weight_shape=weight.shape,
        weight_dtype=str(weight.dtype),
        multiplier=multiplier,
        offset=offset,
        instr=instr,
    )
    shifted = multiplier * instr.shift
    constant = shifted * w8.sum((1, 2, 3), dtype=np.int64) if shifted else 0
    return PackedPart(spec, weight, reach, grid_a.lo, constant)


def compute(tag: str, spec: DotSpec, data, weight, layer: LayerSpec) -> Expressed:
    """D0_1 [y, x, block, lane], after D0_1_narrow where sums are widened, and wide0_1 of the data."""
    name, lanes = f"D{tag}", spec.instr.lanes
    widened = f"wide{tag}" if spec.instr.data_dtype != "uint8" else ""
    data = dot_step.widen(widened, data, spec.instr) if widened else data
    narrow = f"{name}_narrow" if spec.instr.widen else ""
    reduced = dot_step.compute(name, data, weight, *layer.place(spec), spec.groups, spec.instr, narrow)
    return Expressed(DotStages(spec, name, narrow, widened), lambda y, x, o: reduced[y, x, o // lanes, o % lanes])


def step(spec: DotSpec) -> str:
    return spec.instr.intrin.removeprefix("mpcompile.")


def sums(part: ContractPart) -> bool:
    """A stored sum is over all channels: groups do without."""
    form = dot_form(part.grid)
    return part.groups == 1 and form is not None and form[1] != 0


DOT = Family(
    name="dot",
    reads="codes",
    cycles=cycles,
    describe=describe,
    compute=compute,
    step=step,
    sample=lambda tensor, channels, pads: sample(tensor, channels, pads, grids.twos_complement(8)),
    sums=sums,
    rate=lambda target, w, a: target.dot_rate(16383 // (((1 << a) - 1) << w - 1)),
)
