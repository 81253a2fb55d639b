"""x86: how its CPUs count, multiply and look up inside the loops of a layer (loops.py), and the default tiles.

popcount   for kh, kw, word: AND, VPOPCNTD, ADD of 32-bit lanes; without VPOPCNTDQ, PSHUFB of nibbles in 8-bit sums
dot        for kh, kw, 4 channels: VPDPBUSD; without VNNI, VPMADDUBSW in 16-bit sums, or VPMADDWD, 3×3 by tiles
lookup     for kh, kw, 4 channels: VPSHUFB of sums of four activations, in 8-bit sums (AVX2)
depthwise  for kh, kw: multiply-add of 32-bit lanes
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from mpcompile.kernels.build import Stages
from mpcompile.kernels.lookup_form import LANES as LOOKUP_LANES
from mpcompile.kernels.lookup_form import Lookup, digit_bits
from mpcompile.kernels.popcount import LANES
from mpcompile.kernels.popcount_bytes import UNROLLED_PAIRS, ByteCount
from mpcompile.kernels.select import IMAGE_CHANNELS
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.tvm_names import Schedule
from mpcompile.kernels.winograd_form import PRODUCTS, TILE, tiles
from mpcompile.schedules import narrow_loops, winograd_loops
from mpcompile.schedules.loops import LayerLoops, short_epilogue
from mpcompile.schedules.tile import (
    Tile,
    divisors,
    parts_of,
    register_tile,
    row_of,
    table_lines,
    tile_without_contraction,
)
from mpcompile.schedules.x86_intrinsics import dot_instruction, vector_for
from mpcompile.schedules.x86_lookup import lookup
from mpcompile.schedules.x86_narrow import count8
from mpcompile.targets.target import WIDEN_LOOKUP

FEW_LINES, NEAR = 8, 24 * 1024
"""A depthwise layer of so few lines, whose kernel's rows of all channels are more bytes than the first cache keeps, does
all lines of a group before the next group's: 1.3 to 1.4 times as fast on Zen 4 with 960 or 1024 channels of 7×7."""
TABLES = 256 * 1024
"""Bytes of the look-up tables that some output lines share, which the second cache should keep."""

SHALLOW, SHALLOW_VECTORS = 128, (8, 12)
"""Products of an output up to which the epilogue decides a dot layer's tile, and the least and most accumulators of it:
1.05 to 1.4 times as fast for 1×1 layers of 16 to 64 channels on Zen 4; from 256 on it is slower."""


TILES = 28
"""Winograd tiles that a group's weights serve, at least, where a layer has as many."""


@dataclass(frozen=True)
class X86:
    """What of an x86 target decides a kernel: vector width, VNNI, fused multiply-add."""

    vector_bits: int
    vnni: bool
    native_fma: bool
    vpopcnt: bool

    kind = "cpu"

    @staticmethod
    def of(target) -> X86:
        """From a mpcompile.targets.Target."""
        return X86(target.vector_bits, target.has_vnni, target.has_fma, "avx512_vpopcntdq" in target.features)

    @cached_property
    def registers(self) -> int:
        return 32 if self.vector_bits == 512 else 16

    def count_instruction(self, channels: int) -> ByteCount | None:
        """None where a CPU counts 32-bit words; else how it counts bytes."""
        return None if self.vpopcnt else count8(vector_for(self.vector_bits, channels))

    def lookup(self, level_bits: int, products: int) -> Lookup:
        """The steps for levels of so many bits and sums of so many products, on AVX2."""
        bits = digit_bits(level_bits, products, WIDEN_LOOKUP)
        return lookup(-(-level_bits // bits), bits)

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int):
        return dot_instruction(self.vector_bits, self.vnni, max_level, weights, channels)

    def lanes(self, part: PartSpec) -> int:
        """Output channels of a vector of its inner step."""
        return _lanes(part)

    # -- tiles -----------------------------------------------------------------------------------
    def default_tile(self, spec: LayerSpec) -> Tile:
        """The tile that keeps most work in registers between two loads, for the layer's heaviest part."""
        parts = parts_of(spec)
        if not parts:
            return tile_without_contraction(spec, spec.padded == IMAGE_CHANNELS)
        lanes = max(map(self.lanes, parts))
        pixels, block = self._shallow(spec, parts) or register_tile(spec, lanes, 14, self._loads_per_step)
        longest = 32 if any(p.lookup for p in parts) else 16  # neighbouring rows make tables anew
        row = row_of(spec.shape[2], pixels, longest)
        held = block == spec.padded // spec.blocking[0] and pixels * (block // lanes) <= self.registers * 2 // 3
        row = pixels if held and short_epilogue(spec) and not parts[0].offset else row
        return Tile(row, pixels, block, lines=_lines(spec, parts))

    def _shallow(self, spec: LayerSpec, parts: list[PartSpec]) -> tuple[int, int] | None:
        """(pixels, block) where a few steps of dot make an output: a whole group, so that sums need not leave registers.

        As many pixels as leave half the registers to the epilogue.
        """
        part, channels = parts[0], spec.padded // spec.blocking[0]
        if self.registers < 32 or not short_epilogue(spec) or part.offset or part.family != "dot":
            return None
        vectors = channels // self.lanes(part)
        pixels = max(divisors(spec.shape[2], max(1, SHALLOW_VECTORS[1] // vectors)))
        few = part.instr.group * math.prod(part.weight_shape[1:4]) <= SHALLOW
        return (pixels, channels) if few and pixels * vectors >= SHALLOW_VECTORS[0] else None

    def _loads_per_step(self, part: PartSpec, pixels: int, block: int) -> float | None:
        """Memory operands per arithmetic step of a register tile; None where it does not fit the registers."""
        narrow = part.count or part.lookup or (part.instr and part.instr.widen)
        if narrow:  # the wide sums are in L1 meanwhile
            width, vectors = 1, block // self.lanes(part)
            steps = accumulators = pixels * vectors
            weights, loads = vectors, vectors + pixels
            if accumulators + weights + (3 if part.count else 2) > self.registers:  # a count's table is one more
                return None
        elif part.family == "popcount":
            width = -(-LANES * 32 // self.vector_bits)  # registers of one vector
            slots = len(part.slots.weights) if part.slots.merged else 1
            planes_w, planes_a = (len(part.slots.of), len(part.slots.of[0])) if part.slots.merged else (1, 1)
            vectors = block // LANES
            accumulators, weights = pixels * vectors * slots, vectors * planes_w
            steps = pixels * vectors * planes_w * planes_a
            loads = weights + pixels * planes_a * vectors * (0.5 if vectors > 1 else 1)
        else:
            lanes = self.lanes(part)
            width = -(-lanes * 32 // self.vector_bits)
            vectors = block // lanes
            accumulators, weights, steps = pixels * vectors, vectors, pixels * vectors
            # 16 registers hold few accumulators: weights, which come from further away, should serve many pixels
            loads = weights * (1 if self.registers > 16 else 1.25) + pixels
        # LLVM starts the loads and counts of several steps at once: tiles of 28 accumulators out of 32 spilled in some
        # shapes
        in_use = accumulators + min(weights, 4) + 2
        if width * accumulators > self.registers * 3 // 4 or width * in_use > self.registers:
            return None
        return loads / steps

    # -- the schedule ----------------------------------------------------------------------------
    def schedule(self, func, stages: Stages, spec: LayerSpec, tile: Tile):
        """The scheduled PrimFunc."""
        import tvm

        return X86Layer(Schedule(tvm.IRModule({"main": func})), stages, spec, tile).apply()


def _lines(spec: LayerSpec, parts: list[PartSpec]) -> int:
    """Output lines that a group serves. More than one where lines share look-up tables, or where they are few and a
    depthwise layer's input would leave the first cache between two of them."""
    _, height, width = spec.shape
    if any(p.instr and p.instr.winograd for p in parts):
        whole = [n for n in divisors(height, height) if n % 2 == 0 or n == height]
        return next((n for n in whole if tiles(n) * tiles(width) >= TILES), height)
    if any(p.lookup and p.kernel[0] > 1 for p in parts):
        return table_lines(spec, TABLES)
    if len(parts) != 1 or parts[0].family != "depthwise" or height > FEW_LINES:
        return 1
    _, width, channels = parts[0].data.buffer_shape
    return height if parts[0].kernel[0] * width * channels > NEAR else 1


def _lanes(part: PartSpec) -> int:
    """Output channels of a vector of the inner step."""
    if part.count:
        return part.count.lanes
    if part.lookup:
        return LOOKUP_LANES
    if part.family == "popcount":
        return LANES
    return part.instr.lanes if part.family == "dot" else min(16, part.weight_shape[2])


class X86Layer(LayerLoops):
    def lanes(self, part: PartSpec) -> int:
        return _lanes(part)

    def cycles(self) -> float:
        """Roughly what the layer takes on one core: inner steps of whole vectors, and a few cycles a stored vector."""
        channels, height, width = self.spec.shape
        steps = channels / 2
        for _, part in self.stages.parts:
            if part.family == "depthwise":
                inner = part.kernel[0] * part.kernel[1]
            else:
                inner = part.weight_shape[1] * part.weight_shape[2] * part.weight_shape[3]
            if part.instr and part.instr.winograd:
                inner = PRODUCTS * part.weight_shape[3] // TILE**2
            pairs = len(part.slots.of) * len(part.slots.of[0]) if part.slots else 1
            if part.count or part.lookup:
                inner = math.prod(part.weight_shape[2:5])
                pairs = part.weight_shape[1] * (part.lookup.digits if part.lookup else len(part.pairs[0]))
            steps += inner * pairs * self.spec.padded / self.lanes(part)
        return 1.5 * height * width * steps

    def epilogue_lanes(self) -> int:
        """Lanes of int32 and float32 vectors in the epilogue."""
        lanes = [self.lanes(p) for _, p in self.stages.parts] or [16]
        want = min(max(lanes), 16)
        return next(n for n in (want, 16, 8, 4, 2, 1) if n <= want and self.channels % n == 0)

    def popcount(self, name: str, part: PartSpec):
        s = self.s
        if part.count:
            narrow_loops.popcount(self, name, part, UNROLLED_PAIRS)
            halves = name.replace("P", "nibbles")
            s.compute_at(halves, self.shared, preserve_unit_loops=True)
            half, byte = s.split(s.get_loops(s.get_sblock(halves))[-1], [2, None])
            s.unroll(half)
            s.vectorize(byte)
            return
        y, x, ob, slot, lane, kh, kw, word = s.get_loops(s.get_sblock(name))[-8:]
        taps = self.taps(kh, kw, word)
        if part.slots.merged and not self.tile.apart:
            s.reorder(*taps, y, x, ob, slot, lane)
        else:
            s.reorder(slot, *taps, y, x, ob, lane)
        if part.slots.merged:
            s.unroll(slot)  # a pair's term is chosen by its slot: a constant, then
        for loop in (y, x, ob):
            s.unroll(loop)
        s.vectorize(lane)  # before the reduction is decomposed: its init is vectorised with it
        s.decompose_reduction(name, taps[0])
        self.unroll(taps)

    def dot(self, name: str, part: PartSpec):
        s = self.s
        wide = name.replace("D", "wide")
        if wide in self.stages.widened:
            s.compute_at(wide, self.shared, preserve_unit_loops=True)
            self.vectorize_channels(s.get_loops(s.get_sblock(wide))[-1], 16)
        if part.instr.widen:
            return narrow_loops.dot(self, name, part)
        y, x, ob, lane, kh, kw, step, channel = s.get_loops(s.get_sblock(name))[-8:]
        taps = self.taps(kh, kw, step)
        s.reorder(*taps, y, x, ob, lane, channel)
        for loop in (y, x, ob):
            s.unroll(loop)
        s.vectorize(s.get_loops(s.decompose_reduction(name, taps[0]))[-1])
        s.tensorize(s.get_loops(s.get_sblock(f"{name}_update"))[-2], part.instr.intrin)
        self.unroll(taps)

    def winograd(self, name: str, part: PartSpec):
        winograd_loops.dot(self, name, part, 32 if part.instr.lanes == 16 else 16)

    def lookup(self, name: str, part: PartSpec):
        s, table = self.s, name.replace("L", "table")
        # as a step while its loops are the whole table's: TVM's blockize mistakes rows that neighbours share
        s.tensorize(s.split(s.get_loops(s.get_sblock(table))[-1], [None, 32])[1], part.lookup.fill)
        narrow_loops.lookup(self, name, part)
        s.compute_at(f"{table}_o", self.shared, preserve_unit_loops=True)
        if part.lookup.digits > 1:
            digits = f"{table}_digits"
            s.compute_at(digits, self.shared, preserve_unit_loops=True)
            self.vectorize_channels(s.get_loops(s.get_sblock(digits))[-1], 16)
