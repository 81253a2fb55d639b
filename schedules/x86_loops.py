"""What is within a tile on x86, family by family.

popcount   for kh, kw, word: AND, VPOPCNTD, ADD of 32-bit lanes; without VPOPCNTDQ, PSHUFB of nibbles in 8-bit sums
dot        for kh, kw, 4 channels: VPDPBUSD; without VNNI, VPMADDUBSW in 16-bit sums, or VPMADDWD
winograd   for one product of all tiles: VPDPBUSD, VPDPWSSD or VPMADDWD (winograd_loops.py)
lookup     for kh, kw, 4 channels: VPSHUFB of sums of four activations, in 8-bit sums (AVX2)
depthwise  for kh, kw: multiply-add of 32-bit lanes
"""

from __future__ import annotations

import math

from mpcompile.kernels.families.depthwise import DepthwiseSpec
from mpcompile.kernels.families.dot import DotSpec, DotStages
from mpcompile.kernels.families.lookup import LookupSpec, LookupStages
from mpcompile.kernels.families.lookup_form import LANES as LOOKUP_LANES
from mpcompile.kernels.families.popcount import PopcountBytesSpec, PopcountBytesStages, PopcountSpec
from mpcompile.kernels.families.popcount_bytes import UNROLLED_PAIRS
from mpcompile.kernels.families.popcount_words import LANES
from mpcompile.kernels.families.winograd import WinogradSpec, WinogradStages
from mpcompile.kernels.families.winograd import lines as winograd_lines
from mpcompile.kernels.spec import LayerSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.schedules import narrow_loops, winograd_loops
from mpcompile.schedules.depthwise_loops import DepthwiseLoops
from mpcompile.schedules.inner import InnerLoops, register
from mpcompile.schedules.loops import LayerLoops
from mpcompile.schedules.table_lines import table_lines

NAME = "x86"

FEW_LINES, NEAR = 8, 24 * 1024
"""A depthwise layer of so few lines, whose kernel's rows of all channels are more bytes than the first cache keeps, does
all lines of a group before the next group's: 1.3 to 1.4 times as fast on Zen 4 with 960 or 1024 channels of 7×7."""
TABLES = 256 * 1024
"""Bytes of the look-up tables that some output lines share, which the second cache should keep."""

SHALLOW = 128
"""Products of an output up to which the epilogue decides a dot layer's tile: 1.05 to 1.4 times as fast for 1×1 layers of
16 to 64 channels on Zen 4; from 256 on it is slower."""

WIDE, WIDEST = 5, 11
"""Columns of a kernel over an image whose taps are written out, a row at a time: 1.05 to 1.09 times as fast for 7×7 on
Sapphire Rapids."""


def _narrow(vectors: int, pixels: int, extra: int, registers: int) -> float | None:
    """Of a tile of narrow sums; the wide ones are in L1 meanwhile. `extra` registers hold what is neither sum nor
    weight."""
    accumulators = pixels * vectors
    if accumulators + vectors + extra > registers:
        return None
    return _fitting(1, accumulators, vectors, vectors + pixels, accumulators, registers)


def _wide(lanes: int, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
    """Of a tile of 32-bit sums."""
    width = -(-lanes * 32 // vector_bits)
    vectors = block // lanes
    # 16 registers hold few accumulators: weights, which come from further away, should serve many pixels
    loads = vectors * (1 if registers > 16 else 1.25) + pixels
    return _fitting(width, pixels * vectors, vectors, loads, pixels * vectors, registers)


def _fitting(width: int, accumulators: int, weights: int, loads: float, steps: int, registers: int) -> float | None:
    """Loads a step, where accumulators of `width` registers fit. LLVM starts the loads and counts of several steps at
    once: tiles of 28 accumulators out of 32 spilled in some shapes."""
    in_use = accumulators + min(weights, 4) + 2
    if width * accumulators > registers * 3 // 4 or width * in_use > registers:
        return None
    return loads / steps


class Popcount(InnerLoops[PopcountSpec, LayerLoops]):
    def lanes(self, part: PopcountSpec) -> int:
        return LANES

    def cost(self, part: PopcountSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        width = -(-LANES * 32 // vector_bits)  # registers of one vector
        planes_w, planes_a = (len(part.slots.of), len(part.slots.of[0])) if part.slots.merged else (1, 1)
        vectors = block // LANES
        weights = vectors * planes_w
        steps = pixels * vectors * planes_w * planes_a
        loads = weights + pixels * planes_a * vectors * (0.5 if vectors > 1 else 1)
        return _fitting(width, pixels * vectors * self.slots(part), weights, loads, steps, registers)

    def steps(self, part: PopcountSpec, padded: int) -> float:
        pairs = len(part.slots.of) * len(part.slots.of[0])
        return math.prod(part.weight_shape[1:4]) * pairs * padded / LANES

    def slots(self, part: PopcountSpec) -> int:
        return len(part.slots.weights) if part.slots.merged else 1

    def apply(self, layer: LayerLoops, part: PartStages[PopcountSpec]) -> None:
        s, name, slots = layer.s, part.reduction, part.spec.slots
        y, x, ob, slot, lane, kh, kw, word = s.get_loops(s.get_sblock(name))[-8:]
        taps = layer.taps(kh, kw, word)
        if slots.merged and not layer.tile.apart:
            s.reorder(*taps, y, x, ob, slot, lane)
        else:
            s.reorder(slot, *taps, y, x, ob, lane)
        if slots.merged:
            s.unroll(slot)  # a pair's term is chosen by its slot: a constant, then
        for loop in (y, x, ob):
            s.unroll(loop)
        s.vectorize(lane)  # before the reduction is decomposed: its init is vectorised with it
        s.decompose_reduction(name, taps[0])
        layer.unroll(taps)


class PopcountBytes(InnerLoops[PopcountBytesSpec, LayerLoops]):
    def lanes(self, part: PopcountBytesSpec) -> int:
        return part.count.lanes

    def cost(self, part: PopcountBytesSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        return _narrow(block // part.count.lanes, pixels, 3, registers)  # the counts' table is one more

    def steps(self, part: PopcountBytesSpec, padded: int) -> float:
        pairs = part.weight_shape[1] * len(part.pairs[0])
        return math.prod(part.weight_shape[2:5]) * pairs * padded / part.count.lanes

    def taps(self, part: PopcountBytesSpec) -> tuple[int, int, int]:
        return *part.kernel, part.weight_shape[4]

    def apply(self, layer: LayerLoops, part: PartStages[PopcountBytesSpec]) -> None:
        assert isinstance(part, PopcountBytesStages)
        s = layer.s
        narrow_loops.popcount(layer, part, UNROLLED_PAIRS)
        s.compute_at(part.nibbles, layer.shared, preserve_unit_loops=True)
        half, byte = s.split(s.get_loops(s.get_sblock(part.nibbles))[-1], [2, None])
        s.unroll(half)
        s.vectorize(byte)


class Dot(InnerLoops[DotSpec, LayerLoops]):
    def lanes(self, part: DotSpec) -> int:
        return part.instr.lanes

    def cost(self, part: DotSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        if part.instr.widen:
            return _narrow(block // part.instr.lanes, pixels, 2, registers)
        return _wide(part.instr.lanes, pixels, block, registers, vector_bits)

    def steps(self, part: DotSpec, padded: int) -> float:
        return math.prod(part.weight_shape[1:4]) * padded / part.instr.lanes

    def sums_stay(self, part: DotSpec) -> bool:
        return not part.instr.widen

    def shallow(self, part: DotSpec) -> bool:
        return part.instr.group * math.prod(part.weight_shape[1:4]) <= SHALLOW

    def unroll(self, part: DotSpec) -> int:
        """Over an image: a row of the kernel, whose taps have one step each."""
        _, wide, steps = self.taps(part)
        return 2 if steps == 1 and WIDE <= wide <= WIDEST else 0

    def apply(self, layer: LayerLoops, part: PartStages[DotSpec]) -> None:
        assert isinstance(part, DotStages)
        s, name, instr = layer.s, part.reduction, part.spec.instr
        if part.widened:
            s.compute_at(part.widened, layer.shared, preserve_unit_loops=True)
            layer.vectorize_channels(s.get_loops(s.get_sblock(part.widened))[-1], 16)
        if instr.widen:
            narrow_loops.dot(layer, part)
            return
        y, x, ob, lane, kh, kw, step, channel = s.get_loops(s.get_sblock(name))[-8:]
        taps = layer.taps(kh, kw, step)
        s.reorder(*taps, y, x, ob, lane, channel)
        for loop in (y, x, ob):
            s.unroll(loop)
        update = s.get_sblock(name)
        s.vectorize(s.get_loops(s.decompose_reduction(update, taps[0]))[-1])
        s.tensorize(s.get_loops(update)[-2], instr.intrin)
        layer.unroll(taps)


class Winograd(InnerLoops[WinogradSpec, LayerLoops]):
    in_tiles = False

    def lanes(self, part: WinogradSpec) -> int:
        return part.instr.lanes

    def cost(self, part: WinogradSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        return _wide(part.instr.lanes, pixels, block, registers, vector_bits)

    def steps(self, part: WinogradSpec, padded: int) -> float:
        high, wide = part.tile.outputs
        steps = -(-part.data.shape[0] // part.instr.group)
        return part.tile.products * steps / (high * wide) * padded / part.instr.lanes

    def taps(self, part: WinogradSpec) -> tuple[int, int, int]:
        return 1, 1, 1

    def sums_stay(self, part: WinogradSpec) -> bool:
        return True

    def line_step(self, part: WinogradSpec) -> int:
        return part.tile.outputs[0]

    def lines(self, spec: LayerSpec, parts: list[WinogradSpec]) -> int | None:
        return winograd_lines(parts[0].tile, *spec.shape[1:])

    def shared(self, spec: LayerSpec, part: WinogradSpec, lines: int) -> str:
        """Groups where each serves the whole map: in chunks of fewer lines, weights that are larger than dot's would be
        read, or made, several times."""
        whole = lines == spec.shape[1] and spec.blocking[0] > 1
        return "groups" if whole and part.instr.lanes == 16 else ""

    def apply(self, layer: LayerLoops, part: PartStages[WinogradSpec]) -> None:
        assert isinstance(part, WinogradStages)
        winograd_loops.apply(layer, part, 32 if part.spec.instr.lanes == 16 else 16)


class Lookup(InnerLoops[LookupSpec, LayerLoops]):
    longest_row = 32  # neighbouring rows make tables anew

    def lanes(self, part: LookupSpec) -> int:
        return LOOKUP_LANES

    def cost(self, part: LookupSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        return _narrow(block // LOOKUP_LANES, pixels, 2, registers)

    def steps(self, part: LookupSpec, padded: int) -> float:
        pairs = part.weight_shape[1] * part.lookup.digits
        return math.prod(part.weight_shape[2:5]) * pairs * padded / LOOKUP_LANES

    def taps(self, part: LookupSpec) -> tuple[int, int, int]:
        return *part.kernel, part.weight_shape[4]

    def lines(self, spec: LayerSpec, parts: list[LookupSpec]) -> int | None:
        return table_lines(spec, parts, TABLES)

    def apply(self, layer: LayerLoops, part: PartStages[LookupSpec]) -> None:
        assert isinstance(part, LookupStages)
        s = layer.s
        # as a step while its loops are the whole table's: TVM's blockize mistakes rows that neighbours share
        filled = s.blockize(s.split(s.get_loops(s.get_sblock(part.tables))[-1], [None, 32])[1])
        s.tensorize(filled, part.spec.lookup.fill)
        narrow_loops.lookup(layer, part)
        s.compute_at(filled, layer.shared, preserve_unit_loops=True)
        if part.digits:
            s.compute_at(part.digits, layer.shared, preserve_unit_loops=True)
            layer.vectorize_channels(s.get_loops(s.get_sblock(part.digits))[-1], 16)


class Depthwise(DepthwiseLoops):
    def lanes(self, part: DepthwiseSpec) -> int:
        return min(16, part.weight_shape[2])

    def cost(self, part: DepthwiseSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        return _wide(self.lanes(part), pixels, block, registers, vector_bits)

    def steps(self, part: DepthwiseSpec, padded: int) -> float:
        return math.prod(part.kernel) * padded / self.lanes(part)

    def lines(self, spec: LayerSpec, parts: list[DepthwiseSpec]) -> int | None:
        """All of few lines, where a layer's input would leave the first cache between two of them."""
        height = spec.shape[1]
        if len(spec.parts) != 1 or height > FEW_LINES:
            return None
        _, width, channels = parts[0].data.buffer_shape
        return height if parts[0].kernel[0] * width * channels > NEAR else None


register(NAME, PopcountSpec, Popcount())
register(NAME, PopcountBytesSpec, PopcountBytes())
register(NAME, DotSpec, Dot())
register(NAME, WinogradSpec, Winograd())
register(NAME, LookupSpec, Lookup())
register(NAME, DepthwiseSpec, Depthwise())
