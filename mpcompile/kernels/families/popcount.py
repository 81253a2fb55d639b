"""Family `popcount`: bit planes, AND, population count, ADD.

    Σ_k w̃_k·ã_k = Σ_ij c_i·d_j · Σ_k popcount(W_i & A_j)

A device that counts words of 32 bits has the form of popcount_words.py, one that counts bytes or nibbles that of
popcount_bytes.py, one that multiplies matrices of bits that of popcount_rows.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import grid as grids
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.ir.planes import word_bytes, words
from mpcompile.kernels.accumulators import popcount_reach
from mpcompile.kernels.families import popcount_bytes, popcount_rows, popcount_words
from mpcompile.kernels.families.family import Expressed, Family, Given, PackedPart, sample
from mpcompile.kernels.families.popcount_bytes import ByteCount
from mpcompile.kernels.families.popcount_rows import RowTile
from mpcompile.kernels.families.popcount_words import Slots
from mpcompile.kernels.spec import IMAGE_CHANNELS, LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.kernels.storage import first_pattern
from mpcompile.kernels.weights import dense_from_groups, round_up
from mpcompile.targets import Target

# Work beside the inner loop, for each output value, counted in bit-MACs so that it shrinks with wider vectors. Fitted to
# the fused 3×3 layers of ResNet-18 on Zen 5 (W1A1, W1A2, W2A2): 0.3 + 0.1 a plane pair cycles at 683 bit-MAC/cycle.
_OUTPUT, _PAIR = 200.0, 70.0


@dataclass(frozen=True, kw_only=True)
class PopcountSpec(PartSpec):
    """Counts of words."""

    family = "popcount"
    word = "uint32"
    slots: Slots


@dataclass(frozen=True, kw_only=True)
class PopcountBytesSpec(PartSpec):
    """Counts of bytes; plane pairs are apart, with `pairs` = c_i·d_j."""

    family = "popcount"
    word = "uint8"
    count: ByteCount
    pairs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class PopcountRowsSpec(PartSpec):
    """A product of matrices of bits, by blocks of `tile`, with `pairs` = c_i·d_j."""

    family = "popcount"
    word = "uint32"
    tile: RowTile
    pairs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PopcountRowsStages(PartStages[PopcountRowsSpec]):
    """rows: of the data, as the product reads them. added: the sums over plane pairs."""

    rows: str
    added: str


@dataclass(frozen=True)
class PopcountBytesStages(PartStages[PopcountBytesSpec]):
    """narrow: of the 8-bit or 16-bit sums, where counts are widened. nibbles: of the data, where nibbles are counted."""

    narrow: str
    nibbles: str


def cycles(part: ContractPart, in_grid: Grid, target: Target, output: tuple[int, int]) -> float | None:
    """Activations whose patterns count up, of more channels than an image has (a word of so few would be wasted); where
    groups > 1 the weights are spread over a dense kernel, so their grid must hold 0."""
    outputs, per_group, kh, kw = part.q.shape
    channels = per_group * part.groups
    if not (_counts_up(in_grid) and channels > IMAGE_CHANNELS and (part.groups == 1 or part.grid.has_zero)):
        return None
    pairs = part.grid.planes * in_grid.planes
    work = round_up(outputs, 8) * kh * kw * 8 * word_bytes(channels) * words(channels) * pairs
    beside = round_up(outputs, 8) * (_OUTPUT + _PAIR * pairs)
    return output[0] * output[1] * (work + beside) / target.popcount_bitmacs_per_cycle


def _counts_up(grid: Grid) -> bool:
    """Whether the pattern of level k is k + p0 modulo 2^planes, which is what producers can pack."""
    first = grid.patterns[0]
    return bool((grid.patterns == (np.arange(grid.levels) + first) % (1 << grid.planes)).all())


def describe(
    given: Given,
) -> PackedPart[PopcountSpec] | PackedPart[PopcountBytesSpec] | PackedPart[PopcountRowsSpec]:
    """Groups are spread over a dense kernel."""
    grid_w, grid_a = given.part.grid, given.grid
    first_pattern(grid_a)
    q = dense_from_groups(given.part.q, given.part.groups)
    reach = popcount_reach(q[0].size, grid_w.plane_weights, grid_a.plane_weights, grid_w.offset)
    pairs = tuple(tuple(c * d for d in grid_a.plane_weights) for c in grid_w.plane_weights)
    tile = given.architecture.row_tile(grid_w.planes, grid_a.planes, q[0].size, given.padded)
    if tile is not None:
        weight = popcount_rows.pack_weights(q, grid_w, round_up(given.padded, tile.channels))
        rows_spec = PopcountRowsSpec(
            **given.common(1),
            weight_shape=weight.shape,
            weight_dtype=str(weight.dtype),
            offset=grid_w.offset,
            tile=tile,
            pairs=pairs,
        )
        return PackedPart(rows_spec, weight, reach, grid_a.offset)
    count = given.architecture.count_instruction(given.padded)
    if count is None:
        weight = popcount_words.pack_weights(q, grid_w, round_up(given.padded, popcount_words.LANES))
        words_spec = PopcountSpec(
            **given.common(1),
            weight_shape=weight.shape,
            weight_dtype=str(weight.dtype),
            offset=grid_w.offset,
            slots=Slots.make(grid_w.plane_weights, grid_a.plane_weights),
        )
        return PackedPart(words_spec, weight, reach, grid_a.offset)
    weight = popcount_bytes.pack_weights(q, grid_w, round_up(given.padded, count.lanes), count)
    bytes_spec = PopcountBytesSpec(
        **given.common(1),
        weight_shape=weight.shape,
        weight_dtype=str(weight.dtype),
        offset=grid_w.offset,
        count=count,
        pairs=pairs,
    )
    return PackedPart(bytes_spec, weight, reach, grid_a.offset)


AnySpec = PopcountSpec | PopcountBytesSpec | PopcountRowsSpec


def compute(tag: str, spec: AnySpec, data, weight, layer: LayerSpec) -> Expressed:
    """P0_1 [y, x, block, slot, lane]; or by bytes [y, x, block, plane, plane, lane], after P0_1_bytes where counts are
    widened, and nibbles0_1 of the data where nibbles are counted."""
    name = f"P{tag}"
    if isinstance(spec, PopcountSpec):
        reduced = popcount_words.compute(name, data, weight, spec.slots, *layer.place(spec))
        return Expressed(PartStages(spec, name), lambda y, x, o: popcount_words.value(reduced, spec.slots, y, x, o))
    if isinstance(spec, PopcountRowsSpec):
        width = layer.shape[2]
        place = layer.place(spec)
        added = popcount_rows.compute(tag, data, weight, spec.tile, spec.pairs, spec.kernel, *place)
        stages = PopcountRowsStages(spec, name, f"rows{tag}", f"S{tag}")
        return Expressed(stages, lambda y, x, o: added[y * width + x, o])
    nibbles = f"nibbles{tag}" if spec.count.nibbles else ""
    data = popcount_bytes.nibbles(nibbles, data) if nibbles else data
    narrow = f"{name}_bytes" if spec.count.widen else ""
    counted = popcount_bytes.compute(name, narrow, data, weight, spec.count, *layer.place(spec))
    return Expressed(
        PopcountBytesStages(spec, name, narrow, nibbles),
        lambda y, x, o: popcount_bytes.value(counted, spec.pairs, y, x, o),
    )


def step(spec: AnySpec) -> str:
    if isinstance(spec, PopcountSpec):
        return f"{len(spec.slots.of)}x{len(spec.slots.of[0])} planes"
    return f"{len(spec.pairs)}x{len(spec.pairs[0])} {'rows' if isinstance(spec, PopcountRowsSpec) else 'bytes'}"


POPCOUNT = Family(
    name="popcount",
    reads="planes",
    cycles=cycles,
    describe=describe,
    compute=compute,
    step=step,
    sample=lambda tensor, channels, pads: sample(tensor, channels, pads, grids.bipolar()),
    sums=lambda part: part.grid.offset != 0,
    rate=lambda target, w, a: target.popcount_bitmacs_per_cycle / (w * a),
)
