"""What is within a tile on ARM with NEON, family by family.

popcount   for plane pair: for kh, kw, 32 channels: AND, CNT, UADALP into 16 bits; then UADALP into 32 bits
dot        for kh, kw, channels: SDOT; or SMULL, SMLAL, SADALP; or MLA in 8 bits
           both on 64-bit ARM by micro-kernels (arm_microkernels.py), else by tensor intrinsics (arm_intrinsics.py)
lookup     for weight plane, digit: for kh, kw, 8 channels: TBL in two tables, UADALP into 16 bits; or, by 4 channels,
           TBL, ADD in 8 bits, UADDW; by micro-kernels, only on 64-bit ARM
depthwise  for kh, kw: multiply-add of 32-bit lanes
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mpcompile.kernels.accumulators import chunk
from mpcompile.kernels.families.depthwise import DepthwiseSpec
from mpcompile.kernels.families.dot import DotSpec, DotStages
from mpcompile.kernels.families.lookup import LookupSpec, LookupStages
from mpcompile.kernels.families.popcount import PopcountBytesSpec, PopcountBytesStages
from mpcompile.kernels.families.popcount_bytes import MOST_STEPS, UNROLLED_PAIRS
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.schedules import arm_microkernels, narrow_loops
from mpcompile.schedules.arm_intrinsics import BLOCK, LANES
from mpcompile.schedules.depthwise_loops import DepthwiseLoops
from mpcompile.schedules.inner import InnerLoops, register
from mpcompile.schedules.loops import LayerLoops
from mpcompile.schedules.table_fill import FILLED
from mpcompile.schedules.table_lines import table_lines
from mpcompile.schedules.tile import divisors

NAME = "arm"

TABLES = 256 * 1024
"""Bytes of the look-up tables that some output lines share: half of these boards' smallest second cache."""

FILLS = 4
"""Fillings of tables side by side: a chain of one takes 20 cycles of a Cortex-A53."""


def _by_intrinsics(pixels: int, block: int, weights: int, registers: int) -> float | None:
    """Loads and broadcasts a step of a register tile, whose `weights` are vectors that stay for all its pixels. A
    broadcast counts twice: LD1R takes a vector pipe besides."""
    vectors = block // LANES
    accumulators = pixels * vectors
    if accumulators + weights + 3 > registers or accumulators > registers * 3 // 4:
        return None
    return (vectors + 2 * pixels) / accumulators


def _by_microkernels(kind: str, part: PartSpec, pixels: int, block: int, weights: int) -> float:
    """The same of micro-kernels, which have tiles of their own, into which any other is cut. `weights`: vectors of them
    that a step loads."""
    micro = arm_microkernels.choose(kind, pixels, 1 if part.groups > 1 else block // BLOCK, 8)
    return 1 / micro.pixels + 1 / (weights * micro.blocks)


def whole(
    layer: LayerLoops,
    part: PartStages,
    kind: str,
    most: int,
    run: int,
    units: list,
    tile: tuple,
    taps: list,
    within: list,
    first: Callable[[], None] = lambda: None,
) -> None:
    """A micro-kernel for all steps, or, where its 16-bit lanes hold no more than `most` (0: any number), for a chunk of
    them.

    `units`: loops over plane pairs, or weight planes and digits; tile: y, x, block, lane; taps: kh, kw, step; within:
    those of a step. run: steps that the narrowest lanes add. first: what else is to be scheduled while the reduction is
    no micro-kernel yet.
    """
    s, name, spec, planes = layer.s, part.reduction, part.spec, bool(units)
    y, x, ob, lane = tile
    kh, kw, steps = (s.get(loop).extent.value for loop in taps)
    inner = chunk(kh, kw, steps, most) if most else (kh, kw, steps)
    pixels, blocks = (s.get(loop).extent.value for loop in (x, ob))
    micro = arm_microkernels.choose(kind, pixels, 1 if spec.groups > 1 else blocks, inner[2], run)
    outer, within_chunk = zip(*(s.split(loop, [None, n]) for loop, n in zip(taps, inner)))
    (x, pixel), (ob, block) = s.split(x, [None, micro.pixels]), s.split(ob, [None, micro.blocks])
    s.reorder(*units, *outer, y, ob, x, *within_chunk, pixel, block, lane, *within)
    if math.prod(s.get(loop).extent.value for loop in units) <= UNROLLED_PAIRS:
        for loop in units:
            s.unroll(loop)
    update = s.get_sblock(name)
    s.vectorize(s.split(s.get_loops(s.decompose_reduction(update, outer[0]))[-1], [None, LANES])[1])
    first()
    window = arm_microkernels.Window(
        inner[:2],
        inner[2] * arm_microkernels.BYTES[kind],
        spec.strides[1],
        tuple(spec.dilations),
        math.prod(spec.weight_shape[1:]),
    )
    dtypes = "uint8" if planes else spec.instr.data_dtype, spec.weight_dtype
    s.tensorize(s.get_loops(update)[-6 - len(within)], arm_microkernels.intrinsic(micro, window, dtypes, planes))


class PopcountBytes(InnerLoops[PopcountBytesSpec, LayerLoops]):
    KIND = "popcount"

    def lanes(self, part: PopcountBytesSpec) -> int:
        return part.count.lanes

    def cost(self, part: PopcountBytesSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        if part.count.whole:
            return _by_microkernels(self.KIND, part, pixels, block, 4)
        return _by_intrinsics(pixels, block, min(block // LANES, 4), registers)

    def steps(self, part: PopcountBytesSpec, padded: int) -> float:
        pairs = len(part.pairs) * len(part.pairs[0])
        return 3 * math.prod(part.kernel) * part.weight_shape[4] * pairs * padded / LANES

    def taps(self, part: PopcountBytesSpec) -> tuple[int, int, int]:
        return *part.kernel, part.weight_shape[4]

    def apply(self, layer: LayerLoops, part: PartStages[PopcountBytesSpec]) -> None:
        assert isinstance(part, PopcountBytesStages)
        if not part.spec.count.whole:
            narrow_loops.popcount(layer, part, UNROLLED_PAIRS)
            return
        y, x, ob, i, j, lane, kh, kw, step, byte = layer.s.get_loops(layer.s.get_sblock(part.reduction))[-10:]
        whole(layer, part, self.KIND, MOST_STEPS[2], 0, [i, j], (y, x, ob, lane), [kh, kw, step], [byte])


class Dot(InnerLoops[DotSpec, LayerLoops]):
    def lanes(self, part: DotSpec) -> int:
        return part.instr.lanes

    def cost(self, part: DotSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        if part.instr.whole:
            return _by_microkernels(part.instr.whole, part, pixels, block, 4)
        return _by_intrinsics(pixels, block, block // LANES * part.instr.steps, registers)

    def steps(self, part: DotSpec, padded: int) -> float:
        return math.prod(part.kernel) * part.weight_shape[3] * padded / LANES

    def sums_stay(self, part: DotSpec) -> bool:
        return not part.instr.widen

    def apply(self, layer: LayerLoops, part: PartStages[DotSpec]) -> None:
        assert isinstance(part, DotStages)
        s, name, instr = layer.s, part.reduction, part.spec.instr
        if part.widened:
            s.compute_at(part.widened, layer.shared, preserve_unit_loops=True)
            layer.vectorize_channels(s.get_loops(s.get_sblock(part.widened))[-1], 16)
        y, x, ob, lane, kh, kw, step, channel = s.get_loops(s.get_sblock(name))[-8:]
        if instr.whole:
            tile, taps = (y, x, ob, lane), [kh, kw, step]
            whole(layer, part, instr.whole, instr.most, instr.run, [], tile, taps, [channel])
            return
        if not instr.intrin:
            s.reorder(kh, kw, step, channel, y, x, ob, lane)
            for loop in (y, x, ob):
                s.unroll(loop)
            s.vectorize(lane)
            s.decompose_reduction(name, kh)
            return
        steps = instr.steps if part.spec.weight_shape[3] % instr.steps == 0 else 1
        step, inner = s.split(step, [None, steps]) if steps > 1 else (step, None)
        within = [lane, channel] if inner is None else [inner, lane, channel]
        s.reorder(kh, kw, step, y, x, ob, *within)
        for loop in (y, x, ob):
            s.unroll(loop)
        update = s.get_sblock(name)
        s.vectorize(s.get_loops(s.decompose_reduction(update, kh))[-1])
        s.tensorize(s.get_loops(update)[-len(within)], f"{instr.intrin}_x{steps}")


class Lookup(InnerLoops[LookupSpec, LayerLoops]):
    longest_row = 32  # neighbouring rows make tables anew

    def lanes(self, part: LookupSpec) -> int:
        return part.lookup.lanes

    def cost(self, part: LookupSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        return _by_microkernels(part.lookup.whole, part, pixels, block, 1)  # tables are loaded as weights are

    def steps(self, part: LookupSpec, padded: int) -> float:
        inner = math.prod(part.weight_shape[1:5])
        return 2 * inner * part.lookup.digits * part.lookup.tables * padded / BLOCK

    def taps(self, part: LookupSpec) -> tuple[int, int, int]:
        return *part.kernel, part.weight_shape[4]

    def lines(self, spec: LayerSpec, parts: list[LookupSpec]) -> int | None:
        return table_lines(spec, parts, TABLES)

    def apply(self, layer: LayerLoops, part: PartStages[LookupSpec]) -> None:
        assert isinstance(part, LookupStages)
        s, form = layer.s, part.spec.lookup
        # before the loops are a tile's, as on x86
        filled = s.blockize(s.split(s.get_loops(s.get_sblock(part.tables))[-1], [None, FILLED])[1])
        s.tensorize(filled, form.fill)

        def tables() -> None:
            """TVM moves them only while the reduction is no micro-kernel yet."""
            s.compute_at(filled, layer.shared, preserve_unit_loops=True)
            pairs = s.get_loops(filled)[-1]
            s.unroll(s.split(pairs, [None, max(divisors(s.get(pairs).extent.value, FILLS))])[1])
            if part.digits:
                s.compute_at(part.digits, layer.shared, preserve_unit_loops=True)
                layer.vectorize_channels(s.get_loops(s.get_sblock(part.digits))[-1], 16)

        y, x, ob, i, d, lane, kh, kw, step, among, entry = s.get_loops(s.get_sblock(part.reduction))[-11:]
        tile, taps, within = (y, x, ob, lane), [kh, kw, step], [among, entry]
        whole(layer, part, form.whole, form.most, form.run, [i, d], tile, taps, within, tables)


class Depthwise(DepthwiseLoops):
    def lanes(self, part: DepthwiseSpec) -> int:
        return min(8, part.weight_shape[2])

    def cost(self, part: DepthwiseSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        return _by_intrinsics(pixels, block, min(block // LANES, 4), registers)

    def steps(self, part: DepthwiseSpec, padded: int) -> float:
        return math.prod(part.kernel) * padded / LANES


register(NAME, PopcountBytesSpec, PopcountBytes())
register(NAME, DotSpec, Dot())
register(NAME, LookupSpec, Lookup())
register(NAME, DepthwiseSpec, Depthwise())
