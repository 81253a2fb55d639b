"""x86: the schedule of a fused layer, with a hand-set default tile for every shape.

    for y, row of pixels (parallel)                    rows of one output line: `row` pixels
      window sums of the row; its input widened, where the dot-product step takes 16 bits
      for group of output channels                     `channels`, those of one word where the output is packed
        for tile of `pixels` × `block` channels        accumulators in registers
          for kh, kw, word: AND, POPCNT, ADD           (or a dot-product step)
          shift, add, correct → int32 tile in L1
        for pixel: epilogue → levels → pack, store
      pixel sums of the row

With `lines` > 1 the order is: for each so many output lines, for each group, for each row of pixels. A group's weights
are then read once for all of them (cache blocking), and what the groups share is computed for all lines at once.

What carries over from `P` to the epilogue is a tile of int32 in L1; no int32 tensor of a layer is ever in memory.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property

from mpcompile.kernels.build import Stages
from mpcompile.kernels.lookup_form import LANES as LOOKUP_LANES
from mpcompile.kernels.lookup_form import Lookup, digit_bits
from mpcompile.kernels.popcount import LANES
from mpcompile.kernels.popcount_bytes import UNROLLED_PAIRS, ByteCount
from mpcompile.kernels.select import IMAGE_CHANNELS
from mpcompile.kernels.spec import ContractSpec, LayerSpec, PartSpec
from mpcompile.schedules import narrow_loops
from mpcompile.schedules.x86_intrinsics import dot_instruction, vector_for
from mpcompile.schedules.x86_lookup import lookup
from mpcompile.schedules.x86_narrow import count8
from mpcompile.tvm_names import Schedule


WORTH_A_THREAD = 40_000
"""Cycles of a layer below which waking a second thread costs more than it saves."""


@dataclass(frozen=True)
class Tile:
    """What a schedule decides. No decision changes a byte of what a layer writes.

    row: pixels between two epilogues, a multiple of `pixels` that divides the width.
    pixels × block channels: the register tile; `block` divides a group's channels.
    lines: output lines that a group's weights serve before the next group's turn; divides the height.
    unroll: how many of the innermost reduction loops are unrolled, of (kh, kw, word) in their order.
    words_first: the loop over words (or dot-product steps) outside of kh and kw, not inside.
    apart: a popcount's slots one after another, each with fewer accumulators, not together.
    parallel: the loop that threads share: "lines", "rows" or "groups"; "" where the shape decides.
    """

    row: int
    pixels: int
    block: int
    lines: int = 1
    unroll: int = 0
    words_first: bool = False
    apart: bool = False
    parallel: str = ""

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(d: dict) -> "Tile":
        """Raises TypeError or ValueError where `d` is no tile."""
        tile = Tile(**d)
        for name, kind in (("row", int), ("pixels", int), ("block", int), ("lines", int), ("unroll", int),
                           ("words_first", bool), ("apart", bool), ("parallel", str)):
            if type(getattr(tile, name)) is not kind:
                raise ValueError(f"{name} must be {kind.__name__}, not {getattr(tile, name)!r}")
        return tile


FEW_LINES, NEAR = 8, 24 * 1024
"""A depthwise layer of so few lines, whose kernel's rows of all channels are more bytes than the first cache keeps, does
all lines of a group before the next group's: 1.3 to 1.4 times as fast on Zen 4 with 960 or 1024 channels of 7×7."""


def divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


@dataclass(frozen=True)
class X86:
    """What of an x86 target decides a kernel: vector width, VNNI, fused multiply-add."""

    vector_bits: int
    vnni: bool
    native_fma: bool
    vpopcnt: bool

    @staticmethod
    def of(target) -> "X86":
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
        bits = digit_bits(level_bits, products)
        return lookup(-(-level_bits // bits), bits)

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int):
        return dot_instruction(self.vector_bits, self.vnni, max_level, weights, channels)

    def lanes(self, part: PartSpec) -> int:
        """Output channels of a vector of its inner step."""
        return _lanes(part)

    # -- tiles -----------------------------------------------------------------------------------
    def default_tile(self, spec: LayerSpec) -> Tile:
        """The tile that keeps most work in registers between two loads, for the layer's heaviest part."""
        _, _, width = spec.shape
        channels = spec.padded // spec.blocking[0]
        parts = [p for t in spec.terms if isinstance(t, ContractSpec) for p in t.parts]
        if not parts:
            row = divisors(width, 32 if spec.padded == IMAGE_CHANNELS else 16)[-1]
            return Tile(row, row, channels)
        lanes = max(_lanes(p) for p in parts)
        best = None
        for pixels in divisors(width, 14):
            for blocks in divisors(channels // lanes, 8):
                costs = [self._loads_per_step(p, pixels, blocks * lanes) for p in parts]
                if None in costs:
                    continue
                key = (max(costs), pixels)
                if best is None or key < best[0]:
                    best = (key, pixels, blocks * lanes)
        pixels, block = best[1:] if best else (1, lanes)
        longest = 32 if any(p.lookup for p in parts) else 16             # neighbouring rows make tables anew
        row = max(d for d in divisors(width, max(longest, pixels)) if d % pixels == 0)
        held = block == channels and pixels * (block // lanes) <= self.registers * 2 // 3
        row = pixels if held and _short_epilogue(spec) and not parts[0].offset else row
        return Tile(row, pixels, block, lines=spec.shape[1] if _lines_first(spec, parts) else 1)

    def _loads_per_step(self, part: PartSpec, pixels: int, block: int) -> float | None:
        """Memory operands per arithmetic step of a register tile; None where it does not fit the registers."""
        narrow = part.count or part.lookup or part.instr and part.instr.widen
        if narrow:                                                # the wide sums are in L1 meanwhile
            width, vectors = 1, block // _lanes(part)
            steps = accumulators = pixels * vectors
            # of a count, weights are two registers and three steps, and a table, a mask and a copy take three more
            weights, loads = (2 * vectors + 3, 3 * vectors + pixels) if part.count else (vectors, vectors + pixels)
            if accumulators + weights + 2 > self.registers:
                return None
        elif part.family == "popcount":
            width = -(-LANES * 32 // self.vector_bits)            # registers of one vector
            slots = len(part.slots.weights) if part.slots.merged else 1
            planes_w, planes_a = (len(part.slots.of), len(part.slots.of[0])) if part.slots.merged else (1, 1)
            vectors = block // LANES
            accumulators, weights = pixels * vectors * slots, vectors * planes_w
            steps = pixels * vectors * planes_w * planes_a
            loads = weights + pixels * planes_a * vectors * (0.5 if vectors > 1 else 1)
        else:
            lanes = _lanes(part)
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

        return _Layer(Schedule(tvm.IRModule({"main": func})), stages, spec, tile).apply()


def _short_epilogue(spec: LayerSpec) -> bool:
    """Whether the epilogue of a register tile may be unrolled: one contraction, no planes to pack from what it gives."""
    parts = [p for t in spec.terms if isinstance(t, ContractSpec) for p in t.parts]
    return len(parts) == 1 and parts[0].family in ("dot", "depthwise") and not (
        parts[0].instr and parts[0].instr.widen) and all(
        b.format in ("codes", "float") for o in spec.outputs for b in o.buffers)


def _lines_first(spec: LayerSpec, parts: list[PartSpec]) -> bool:
    """Whether a depthwise layer's input would leave the first cache between two output lines, and lines are few."""
    if len(parts) != 1 or parts[0].family != "depthwise" or spec.shape[1] > FEW_LINES:
        return False
    _, width, channels = parts[0].data.buffer_shape
    return parts[0].kernel[0] * width * channels > NEAR


def _lanes(part: PartSpec) -> int:
    """Output channels of a vector of the inner step."""
    if part.count:
        return part.count.lanes
    if part.lookup:
        return LOOKUP_LANES
    if part.family == "popcount":
        return LANES
    return part.instr.lanes if part.family == "dot" else min(16, part.weight_shape[2])


@dataclass
class _Layer:
    s: Schedule
    stages: Stages
    spec: LayerSpec
    tile: Tile

    @property
    def channels(self) -> int:
        """Channels of a group."""
        return self.spec.padded // self.spec.blocking[0]

    def apply(self):
        s, tile = self.s, self.tile
        y, x, group, vector, lane = s.get_loops(s.get_sblock("value"))
        x, pixel = s.split(x, [None, tile.row])
        if tile.lines > 1:
            y, line = s.split(y, [None, tile.lines])
            s.reorder(y, group, line, x, pixel, vector, lane)
        else:
            s.reorder(y, x, group, pixel, vector, lane)
        s.set_scope("value", 0, "local")
        # first of all: later, decomposed reductions have two writers, which `parallel` does not accept
        shared = self.parallel(y, x, group)
        self.shared, self.inner, self.pixel = (y, x, pixel) if tile.lines > 1 else (shared, group, pixel)
        if self.spec.padded == IMAGE_CHANNELS and not self.stages.parts:
            self.image(pixel, vector, lane)
        else:
            self.vectorize_channels(s.fuse(vector, lane), self.epilogue_lanes())
        for name in self.stages.levels:
            s.set_scope(name, 0, "local")
            self.after_root(name, self.epilogue_lanes())
        for name, form in self.stages.stored:
            self.store(name, form)
        for name in self.stages.pools:
            self.pool(name)
        parts = iter(self.stages.parts)
        contracts = [t for t in self.spec.terms if isinstance(t, ContractSpec)]
        for name, term in zip(self.stages.accumulators, contracts):
            self.contract(name, [next(parts) for _ in term.parts])
        for name in self.stages.windows:
            s.set_scope(name, 0, "local")
            s.compute_at(name, self.shared, preserve_unit_loops=True)
            loops = s.get_loops(s.get_sblock(name))
            s.reorder(*loops[-2:], *loops[-4:-2])
            s.decompose_reduction(name, loops[-2])
        if tile.row == tile.pixels and tile.block == self.channels and _short_epilogue(self.spec):
            s.unroll(self.pixel)                # the tile stays in registers on its way to the epilogue
        return s.mod["main"]

    def image(self, pixel, vector, lane):
        """An image of few channels: lanes are pixels, not channels.

        Storing them interleaved is left to LLVM, which is good at it.
        """
        s = self.s
        s.reorder(vector, lane, pixel)
        s.transform_layout("value", ("write", 0), lambda y, x, group, vector, lane: (y, group, vector, lane, x))
        s.unroll(lane)
        lanes = max(divisors(self.tile.row, 16))
        if lanes > 1:
            s.vectorize(s.split(pixel, [None, lanes])[1])
        self.pixel = self.inner

    def cycles(self) -> float:
        """Roughly what the layer takes on one core: inner steps of whole vectors, and a few cycles a stored vector."""
        channels, height, width = self.spec.shape
        steps = channels / 2
        for _, part in self.stages.parts:
            if part.family == "depthwise":
                inner = part.kernel[0] * part.kernel[1]
            else:
                inner = part.weight_shape[1] * part.weight_shape[2] * part.weight_shape[3]
            pairs = len(part.slots.of) * len(part.slots.of[0]) if part.slots else 1
            if part.count or part.lookup:
                inner = math.prod(part.weight_shape[2:5])
                pairs = part.weight_shape[1] * (part.lookup.digits if part.lookup else len(part.pairs[0]))
            steps += inner * pairs * self.spec.padded / _lanes(part)
        return 1.5 * height * width * steps

    def epilogue_lanes(self) -> int:
        """Lanes of int32 and float32 vectors in the epilogue."""
        lanes = [_lanes(p) for _, p in self.stages.parts] or [16]
        want = min(max(lanes), 16)
        return next(n for n in (want, 16, 8, 4, 2, 1) if n <= want and self.channels % n == 0)

    def vectorize_channels(self, channel, lanes: int):
        if self.s.get(channel).extent.value % lanes:
            return
        vectors, lane = self.s.split(channel, [None, lanes])
        self.s.unroll(vectors)
        self.s.vectorize(lane)

    def after_root(self, name: str, lanes: int):
        """Per pixel, under the root's loops; the innermost axes are a group's vectors and lanes, or channels."""
        s = self.s
        block = s.get_sblock(name)
        flat = len(s.get(block).iter_vars) == 3
        s.reverse_compute_at(name, self.pixel, preserve_unit_loops=True)
        loops = s.get_loops(block)
        self.vectorize_channels(loops[-1] if flat else s.fuse(*loops[-2:]), lanes)

    def store(self, name: str, form: str):
        s = self.s
        if self.pixel is self.inner and form == "codes":
            s.reverse_compute_at(name, self.inner, preserve_unit_loops=True)
            s.unroll(s.get_loops(s.get_sblock(name))[-1])
            return
        if form == "sums":
            s.reverse_compute_at(name, self.shared, preserve_unit_loops=True)
            loops = s.get_loops(s.get_sblock(name))
            s.unroll(loops[-3])                  # planes, or groups of channels
            s.decompose_reduction(name, loops[-3])
        elif form == "planes":
            bits = f"{name}_bits"
            s.set_scope(bits, 0, "local")
            s.reverse_compute_at(bits, self.pixel, preserve_unit_loops=True)
            plane, word, lane, k = s.get_loops(s.get_sblock(bits))[-4:]
            s.reorder(plane, word, k, lane)
            for loop in (plane, word, k):
                s.unroll(loop)
            s.vectorize(lane)
            s.decompose_reduction(bits, k)
            s.reverse_compute_at(name, self.pixel, preserve_unit_loops=True)
            plane, word, lane = s.get_loops(s.get_sblock(name))[-3:]
            s.unroll(plane)
            s.unroll(word)
            s.vectorize(lane)
        elif form == "plain":
            s.reverse_compute_at(name, self.inner, preserve_unit_loops=True)
        else:
            self.after_root(name, self.epilogue_lanes())

    def pool(self, name: str):
        s = self.s
        s.set_scope(name, 0, "local")
        s.compute_at(name, self.inner, preserve_unit_loops=True)
        y, x, o, kh, kw = s.get_loops(s.get_sblock(name))[-5:]
        s.reorder(y, x, kh, kw, o)
        self.vectorize_channels(o, self.epilogue_lanes())
        s.decompose_reduction(name, kh)

    # -- contractions ----------------------------------------------------------------------------
    def contract(self, name: str, parts: list[tuple[str, PartSpec]]):
        s, tile = self.s, self.tile
        s.set_scope(name, 0, "local")
        s.compute_at(name, self.inner, preserve_unit_loops=True)
        y, x, o = s.get_loops(s.get_sblock(name))[-3:]
        x, pixel = s.split(x, [None, tile.pixels])
        block, channel = s.split(o, [None, tile.block])
        s.reorder(y, x, block, pixel, channel)
        s.unroll(pixel)
        self.vectorize_channels(channel, min(16, *(_lanes(p) for _, p in parts)))
        for reduction, part in parts:
            s.set_scope(reduction, 0, "local")
            s.compute_at(reduction, block, preserve_unit_loops=True)
            {"popcount": self.popcount, "dot": self.dot, "depthwise": self.depthwise,
             "lookup": self.lookup}[part.family](reduction, part)

    def popcount(self, name: str, part: PartSpec):
        if part.count:
            return narrow_loops.popcount(self, name, part, UNROLLED_PAIRS)
        s = self.s
        y, x, ob, slot, lane, kh, kw, word = s.get_loops(s.get_sblock(name))[-8:]
        taps = self.taps(kh, kw, word)
        if part.slots.merged and not self.tile.apart:
            s.reorder(*taps, y, x, ob, slot, lane)
        else:
            s.reorder(slot, *taps, y, x, ob, lane)
        if part.slots.merged:
            s.unroll(slot)                    # a pair's term is chosen by its slot: a constant, then
        for loop in (y, x, ob):
            s.unroll(loop)
        s.vectorize(lane)                     # before the reduction is decomposed: its init is vectorised with it
        s.decompose_reduction(name, taps[0])
        self.unroll(taps)

    def taps(self, kh, kw, word) -> list:
        """The reduction's loops in the tile's order."""
        return [word, kh, kw] if self.tile.words_first else [kh, kw, word]

    def unroll(self, taps: list):
        for loop in taps[len(taps) - min(self.tile.unroll, len(taps)):]:
            self.s.unroll(loop)

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

    def lookup(self, name: str, part: PartSpec):
        narrow_loops.lookup(self, name, part)
        s, table = self.s, name.replace("L", "table")
        s.compute_at(table, self.shared, preserve_unit_loops=True)
        digit, entry = s.get_loops(s.get_sblock(table))[-2:]
        s.unroll(digit)
        s.vectorize(entry)

    def depthwise(self, name: str, part: PartSpec):
        s = self.s
        y, x, o, kh, kw = s.get_loops(s.get_sblock(name))[-5:]
        s.reorder(kh, kw, y, x, o)
        for loop in (y, x):
            s.unroll(loop)
        self.vectorize_channels(o, _lanes(part))
        s.decompose_reduction(name, kh)
        self.unroll([kh, kw])

    # -- threads ---------------------------------------------------------------------------------
    def parallel(self, y, x, group):
        """Shares the work between threads, where there is enough; returns the loop over rows of pixels.

        Parallel are output lines, or rows of pixels where lines are few. Where those are few too, groups of channels
        are, unless pixel sums are stored, which need all groups. Where a group serves several lines, the sums stand
        outside of the loop over groups, and the longer of the two loops is parallel.
        """
        s = self.s
        if self.cycles() < WORTH_A_THREAD:
            return x
        axis = self.tile.parallel or self.default_parallel()
        if axis == "rows":
            x = s.fuse(y, x)
        s.parallel({"lines": y, "rows": x, "groups": group}[axis])
        return x

    def default_parallel(self) -> str:
        _, height, width = self.spec.shape
        chunks = height // self.tile.lines
        if self.tile.lines > 1:
            return "lines" if chunks >= self.spec.blocking[0] else "groups"
        sums = any(form == "sums" for _, form in self.stages.stored)
        if height >= 8:
            return "lines"
        return "rows" if sums or height * (width // self.tile.row) >= 8 else "groups"
