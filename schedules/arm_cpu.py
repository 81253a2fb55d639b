"""ARM with NEON, 64-bit and 32-bit: the schedule of a fused layer, with a hand-set default tile for every shape.

The loops around a tile are those of loops.py; here are the inner loops:

    popcount   for plane pair: for kh, kw, 32 channels: AND, CNT, UADALP into 16 bits; then UADALP into 32 bits
    dot        for kh, kw, channels: SDOT; or SMULL, SMLAL, SADALP; or MLA in 8 bits
               both on 64-bit ARM by micro-kernels (arm_microkernels.py), else by tensor intrinsics (arm_intrinsics.py)
    lookup     for weight plane, digit: for kh, kw, 8 channels: TBL in two tables, UADALP into 16 bits; or, by 4 channels,
               TBL, ADD in 8 bits, UADDW; by micro-kernels, only on 64-bit ARM
    depthwise  for kh, kw: multiply-add of 32-bit lanes

On ARMv7, NEON takes subnormal float32 numbers for 0: there the epilogue's floats are scalars, which VFP computes exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mpcompile.kernels.accumulators import chunk
from mpcompile.kernels.lookup_form import Lookup
from mpcompile.kernels.popcount_bytes import MOST_STEPS, UNROLLED_PAIRS
from mpcompile.kernels.select import IMAGE_CHANNELS
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.tvm_names import Schedule
from mpcompile.schedules import arm_intrinsics, arm_microkernels, narrow_loops
from mpcompile.schedules.arm_intrinsics import BLOCK, LANES
from mpcompile.schedules.arm_lookup import lookup
from mpcompile.schedules.loops import LayerLoops
from mpcompile.schedules.table_fill import FILLED
from mpcompile.schedules.tile import (
    Tile,
    divisors,
    parts_of,
    register_tile,
    row_of,
    table_lines,
    tile_without_contraction,
)

TABLES = 256 * 1024
"""Bytes of the look-up tables that some output lines share: half of these boards' smallest second cache."""

FILLS = 4
"""Fillings of tables side by side: a chain of one takes 20 cycles of a Cortex-A53."""

REGISTERS = {"aarch64": 32, "armv7l": 16}


@dataclass(frozen=True)
class Arm:
    """What of an ARM target decides a kernel.

    core: LLVM's name, which decides the default tile.
    """

    isa: str
    dotprod: bool
    core: str

    kind = "cpu"

    native_fma = True
    """Every core here has VFPv4 or newer."""

    @staticmethod
    def of(target) -> Arm:
        """From a mpcompile.targets.Target."""
        return Arm(target.arch, "asimddp" in target.features, target.mcpu)

    @property
    def registers(self) -> int:
        return REGISTERS[self.isa]

    def lanes(self, part: PartSpec) -> int:
        """Output channels whose weights lie together."""
        return _lanes(part)

    def count_instruction(self, channels: int):
        return arm_intrinsics.count(self.isa, min(channels, BLOCK))

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int):
        return arm_intrinsics.dot_instruction(
            self.isa, self.dotprod, max_level, weights, channels, self.core == "cortex-a53"
        )

    def lookup(self, level_bits: int, products: int) -> Lookup:
        """The steps for levels of so many bits, and any number of products."""
        return lookup(level_bits, 2 if self.dotprod or self.core == "cortex-a53" else 1)

    # -- tiles -----------------------------------------------------------------------------------
    def default_tile(self, spec: LayerSpec) -> Tile:
        """The tile with the fewest loads and broadcasts a step that fits the registers, for the heaviest part."""
        parts = parts_of(spec)
        if not parts:
            return tile_without_contraction(spec, spec.padded == IMAGE_CHANNELS)
        pixels, block = register_tile(spec, max(map(_lanes, parts)), 8, self._cost)
        looked_up = any(p.lookup for p in parts)  # neighbouring rows make tables anew
        return Tile(row_of(spec.shape[2], pixels, 32 if looked_up else 16), pixels, block, table_lines(spec, TABLES))

    def _cost(self, part: PartSpec, pixels: int, block: int) -> float | None:
        """Loads and broadcasts per arithmetic step of a register tile; None where it does not fit the registers.

        A broadcast counts twice: LD1R takes a vector pipe besides. A dot product's weights of all its steps stay for all
        pixels of the tile. Micro-kernels have tiles of their own, into which any other is cut; look-ups load tables as
        they load weights.
        """
        kind = whole_kind(part)
        if kind:
            micro = arm_microkernels.choose(kind, pixels, 1 if part.groups > 1 else block // BLOCK, 8)
            return 1 / micro.pixels + 1 / ((1 if part.lookup else 4) * micro.blocks)
        vectors = block // LANES
        accumulators, registers = pixels * vectors, REGISTERS[self.isa]
        weights = vectors * part.instr.steps if part.instr else min(vectors, 4)
        if accumulators + weights + 3 > registers or accumulators > registers * 3 // 4:
            return None
        return (vectors + 2 * pixels) / accumulators

    # -- the schedule ----------------------------------------------------------------------------
    def schedule(self, func, stages, spec: LayerSpec, tile: Tile):
        """The scheduled PrimFunc."""
        import tvm

        return ArmLayer(Schedule(tvm.IRModule({"main": func})), stages, spec, tile, self.isa).apply()


def _lanes(part: PartSpec) -> int:
    """Output channels whose weights lie together."""
    if part.count or part.lookup:
        return (part.count or part.lookup).lanes
    return part.instr.lanes if part.instr else min(8, part.weight_shape[2])


def whole_kind(part: PartSpec) -> str:
    """The kind of micro-kernel that computes a part; "" for none."""
    if part.count:
        return "popcount" if part.count.whole else ""
    if part.lookup:
        return part.lookup.whole
    return part.instr.whole if part.instr else ""


@dataclass
class ArmLayer(LayerLoops):
    isa: str = "aarch64"

    def lanes(self, part: PartSpec) -> int:
        return _lanes(part)

    def cycles(self) -> float:
        """Roughly what the layer takes on one core: vectors of the inner step, and a few cycles a stored vector."""
        channels, height, width = self.spec.shape
        steps = 2.0 * channels
        for _, part in self.stages.parts:
            taps = part.kernel[0] * part.kernel[1]
            if part.count:
                steps += (
                    3 * taps * part.weight_shape[4] * len(part.pairs) * len(part.pairs[0]) * self.spec.padded / LANES
                )
            elif part.lookup:
                steps += (
                    2
                    * math.prod(part.weight_shape[1:5])
                    * part.lookup.digits
                    * part.lookup.tables
                    * self.spec.padded
                    / BLOCK
                )
            elif part.instr:
                steps += taps * part.weight_shape[3] * self.spec.padded / LANES
            else:
                steps += taps * self.spec.padded / LANES
        return height * width * steps

    @property
    def scalar_floats(self) -> bool:
        """Whether the layer computes in float32 where vectors of it are not exact. Thresholds compare integers."""
        computed = any(op.kind not in ("Load", "Thresholds", "Value") for op in self.spec.ops)
        return self.isa == "armv7l" and computed

    def image(self, pixel, vector, lane):
        tile = self.tile
        self.tile = replace(tile, row=1) if self.scalar_floats else tile  # lanes are pixels of a row
        super().image(pixel, vector, lane)
        self.tile = tile

    def vectorize_channels(self, channel, lanes: int):
        if lanes > 1:
            super().vectorize_channels(channel, lanes)

    def epilogue_lanes(self) -> int:
        """Lanes of int32 and float32 vectors in the epilogue."""
        if self.scalar_floats:
            return 1
        return next(n for n in (8, 4, 2, 1) if self.channels % n == 0)

    def whole(self, name: str, part: PartSpec, units: list, y, x, ob, lane, taps: list, *within):
        """A micro-kernel for all steps, or, where its 16-bit lanes do not hold so many, for a chunk of them.

        `units`: loops over plane pairs, or weight planes and digits; taps: kh, kw, step; within: those of a step.
        """
        s, kind, planes = self.s, whole_kind(part), bool(units)
        extents = [s.get(loop).extent.value for loop in taps]
        most = MOST_STEPS[2] if part.count else (part.lookup or part.instr).most
        inner = chunk(*extents, most) if most else tuple(extents)
        pixels, blocks = (s.get(loop).extent.value for loop in (x, ob))
        micro = arm_microkernels.choose(
            kind,
            pixels,
            1 if part.groups > 1 else blocks,
            inner[2],
            (part.lookup or part.instr).run if part.lookup or part.instr else 0,
        )
        outer, taps = zip(*(s.split(loop, [None, n]) for loop, n in zip(taps, inner)))
        (x, pixel), (ob, block) = s.split(x, [None, micro.pixels]), s.split(ob, [None, micro.blocks])
        s.reorder(*units, *outer, y, ob, x, *taps, pixel, block, lane, *within)
        if math.prod(s.get(loop).extent.value for loop in units) <= UNROLLED_PAIRS:
            for loop in units:
                s.unroll(loop)
        s.vectorize(s.split(s.get_loops(s.decompose_reduction(name, outer[0]))[-1], [None, LANES])[1])
        if part.lookup:
            self.tables(name, part)
        window = arm_microkernels.Window(
            inner[:2],
            inner[2] * arm_microkernels.BYTES[kind],
            part.strides[1],
            tuple(part.dilations),
            math.prod(part.weight_shape[1:]),
        )
        dtypes = "uint8" if planes else part.instr.data_dtype, part.weight_dtype
        s.tensorize(
            s.get_loops(s.get_sblock(f"{name}_update"))[-6 - len(within)],
            arm_microkernels.intrinsic(micro, window, dtypes, planes),
        )

    def popcount(self, name: str, part: PartSpec):
        if part.count.whole:
            y, x, ob, i, j, lane, kh, kw, step, byte = self.s.get_loops(self.s.get_sblock(name))[-10:]
            self.whole(name, part, [i, j], y, x, ob, lane, [kh, kw, step], byte)
            return
        narrow_loops.popcount(self, name, part, UNROLLED_PAIRS)

    def tables(self, name: str, part: PartSpec):
        """The tables that the micro-kernels read; TVM moves them only while the reduction is no micro-kernel yet."""
        s, table = self.s, name.replace("L", "table")
        s.compute_at(f"{table}_o", self.shared, preserve_unit_loops=True)
        pairs = s.get_loops(s.get_sblock(f"{table}_o"))[-1]
        s.unroll(s.split(pairs, [None, max(divisors(s.get(pairs).extent.value, FILLS))])[1])
        if part.lookup.digits > 1:
            digits = f"{table}_digits"
            s.compute_at(digits, self.shared, preserve_unit_loops=True)
            self.vectorize_channels(s.get_loops(s.get_sblock(digits))[-1], 16)

    def lookup(self, name: str, part: PartSpec):
        s, table = self.s, name.replace("L", "table")
        # before the loops are a tile's, as on x86
        s.tensorize(s.split(s.get_loops(s.get_sblock(table))[-1], [None, FILLED])[1], part.lookup.fill)
        y, x, ob, i, d, lane, kh, kw, step, among, entry = s.get_loops(s.get_sblock(name))[-11:]
        self.whole(name, part, [i, d], y, x, ob, lane, [kh, kw, step], among, entry)

    def dot(self, name: str, part: PartSpec):
        s, instr = self.s, part.instr
        wide = name.replace("D", "wide")
        if wide in self.stages.widened:
            s.compute_at(wide, self.shared, preserve_unit_loops=True)
            self.vectorize_channels(s.get_loops(s.get_sblock(wide))[-1], 16)
        y, x, ob, lane, kh, kw, step, channel = s.get_loops(s.get_sblock(name))[-8:]
        if instr.whole:
            self.whole(name, part, [], y, x, ob, lane, [kh, kw, step], channel)
            return
        if not instr.intrin:
            s.reorder(kh, kw, step, channel, y, x, ob, lane)
            for loop in (y, x, ob):
                s.unroll(loop)
            s.vectorize(lane)
            s.decompose_reduction(name, kh)
            return
        steps = instr.steps if part.weight_shape[3] % instr.steps == 0 else 1
        step, inner = s.split(step, [None, steps]) if steps > 1 else (step, None)
        within = [lane, channel] if inner is None else [inner, lane, channel]
        s.reorder(kh, kw, step, y, x, ob, *within)
        for loop in (y, x, ob):
            s.unroll(loop)
        s.vectorize(s.get_loops(s.decompose_reduction(name, kh))[-1])
        s.tensorize(s.get_loops(s.get_sblock(f"{name}_update"))[-len(within)], f"{instr.intrin}_x{steps}")
