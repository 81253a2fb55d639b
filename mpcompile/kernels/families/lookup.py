"""Family `lookup`: sums of four activations in 16-entry tables, which four bits of weights index.

    Σ_k w̃_k·l_k = Σ_i Σ_d c_i·2^(b·d) · P_id       P_id = Σ_(k by fours) T_d[bits of W_i at k..k+3]
    T_d[e] = Σ_(j in e) digit d of l_(k+j)

A digit is `bits` = b bits of an activation's level. One PSHUFB looks up 32 output channels: 128 products of one weight
bit. Entries are added in 8 bits as long as they provably fit, then in 16 bits. Work grows with the weights' bits; with
the activations' only through the digits, and through how soon 8 bits are full. On ARM, where a TBL may look up in two
tables for 8 output channels and UADALP add both entries in 16 bits, they never are.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpcompile.ir import grid as grids
from mpcompile.ir.formats import channel_pad
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.accumulators import popcount_reach
from mpcompile.kernels.families import lookup_form, lookup_tables
from mpcompile.kernels.families.family import Expressed, Family, Given, PackedPart, sample
from mpcompile.kernels.families.lookup_form import GROUP, Lookup, digit_bits, entries
from mpcompile.kernels.spec import IMAGE_CHANNELS, LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.kernels.weights import dot_form, round_up
from mpcompile.targets import Target

_OUTPUT = 100.0
"""Work beside the inner loop, for each output value, in products of one weight bit."""
_TABLES_AGAIN = 1.3
"""How often a table is made, where kernels of several lines read it."""


@dataclass(frozen=True, kw_only=True)
class LookupSpec(PartSpec):
    """plane_weights: of the weights, c_i."""

    family = "lookup"
    lookup: Lookup
    plane_weights: tuple[int, ...]


@dataclass(frozen=True)
class LookupStages(PartStages[LookupSpec]):
    """tables: of the data. digits: of their levels, where they have several. narrow: of the 8-bit sums; "" where one
    intrinsic computes all steps."""

    tables: str
    digits: str
    narrow: str


def cycles(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> float | None:
    """Activations of at most 256 levels and of more channels than an image has, weights as `dot` has them, where the
    target has a figure for it, the output channels fill its vectors, and 16-bit sums hold the products or are widened.

    A step is a look-up and an addition. A table takes 2 steps to make; lines share all but a few of them.
    """
    outputs, channels, kh, kw = part.q.shape
    if in_grid.levels > 256 or dot_form(part.grid) is None or part.groups > 1 or channels <= IMAGE_CHANNELS:
        return None
    if not _fills_vectors(outputs, target):
        return None
    level_bits, lanes, widen = (in_grid.levels - 1).bit_length(), target.lookup_lanes, target.lookup_widen
    bits = digit_bits(level_bits, 1 if target.lookup_sums_any else part.q[0].size, widen)
    if bits is None:
        return None
    digits = -(-level_bits // bits)
    steps = round_up(channels, 16) // GROUP * digits
    looked_up = steps * kh * kw * round_up(outputs, lanes) / lanes * part.grid.planes * (1 + widen / entries(bits))
    made = 2 * steps * part.strides[0] * part.strides[1] * (_TABLES_AGAIN if kh > 1 else 1)
    pixel = ((looked_up + made) * GROUP * lanes + round_up(outputs, 16) * _OUTPUT) / target.lookup_macs_per_cycle
    return output[0] * output[1] * pixel


def _fills_vectors(outputs: int, target: Target) -> bool:
    """Whether the target has look-ups, and the channels that are computed together are whole vectors, in whatever form
    they are stored."""
    lanes = target.lookup_lanes
    if not target.lookup_macs_per_cycle or outputs <= IMAGE_CHANNELS:
        return False
    return lanes == 16 or round_up(outputs, 16) == lanes or round_up(outputs, 16) % 64 == 0


def describe(given: Given) -> PackedPart[LookupSpec]:
    q, grid_w, grid_a = given.part.q, given.part.grid, given.grid
    form = given.architecture.lookup((grid_a.levels - 1).bit_length(), q[0].size)
    weight = lookup_form.pack_weights(q, grid_w, round_up(given.padded, form.lanes), channel_pad(q.shape[1]), form)
    spec = LookupSpec(
        **given.common(1),
        weight_shape=weight.shape,
        weight_dtype=str(weight.dtype),
        multiplier=grid_a.step,
        offset=grid_w.offset * grid_a.step,
        lookup=form,
        plane_weights=grid_w.plane_weights,
    )
    reach = popcount_reach(q[0].size, grid_w.plane_weights, (grid_a.levels - 1,), grid_w.offset) * grid_a.step
    return PackedPart(spec, weight, reach, grid_a.lo)


def compute(tag: str, spec: LookupSpec, data, weight, layer: LayerSpec) -> Expressed:
    """L0_1 [y, x, block, plane, digit, 2, 16], after L0_1_bytes; of one intrinsic for all steps [y, x, block, plane,
    digit, lane]. Before it table0_1 of the data, and table0_1_digits where levels have several."""
    form, name, tables = spec.lookup, f"L{tag}", f"table{tag}"
    stages = LookupStages(
        spec, name, tables, f"{tables}_digits" if form.digits > 1 else "", "" if form.whole else f"{name}_bytes"
    )
    table = lookup_tables.tables(tables, stages.digits, data, form)
    reduced = lookup_tables.compute(name, stages.narrow, table, weight, form, *layer.place(spec))
    return Expressed(stages, lambda y, x, o: lookup_tables.value(reduced, spec.plane_weights, form, y, x, o))


def step(spec: LookupSpec) -> str:
    return f"{len(spec.plane_weights)} planes {spec.lookup.digits}x{spec.lookup.bits} bits"


def rate(target: Target, weight_planes: int, activation_planes: int) -> float:
    """Activations are split into digits, of which 8 bits hold 255/(4·(2^b − 1)) sums of four; then they are widened."""
    splits = (
        (digits, 255 // (4 * ((1 << -(-activation_planes // digits)) - 1)))
        for digits in range(1, activation_planes + 1)
    )
    look_ups = min(digits * (1 + target.lookup_widen / sums) for digits, sums in splits if sums)
    return target.lookup_macs_per_cycle / (weight_planes * look_ups)


FULL_VECTORS = 64
"""Output channels that are whole vectors on every target."""

LOOKUP = Family(
    name="lookup",
    reads="codes",
    cycles=cycles,
    describe=describe,
    compute=compute,
    step=step,
    sample=lambda tensor, channels, pads: sample(tensor, channels, pads, grids.twos_complement(8), FULL_VECTORS),
    sums=lambda part: part.groups == 1 and part.grid.offset != 0,
    rate=rate,
)
