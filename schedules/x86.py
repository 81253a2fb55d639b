"""x86: which steps its CPUs have for a layer, and the default tiles. What is within a tile: x86_loops.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mpcompile.kernels import halo
from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.lookup_form import Lookup, digit_bits
from mpcompile.kernels.families.popcount_bytes import ByteCount
from mpcompile.kernels.spec import IMAGE_CHANNELS, LayerSpec, PartSpec
from mpcompile.kernels.stages import Stages
from mpcompile.kernels.tvm_names import PrimFunc, Schedule
from mpcompile.schedules import x86_loops
from mpcompile.schedules.inner import loops_of
from mpcompile.schedules.loops import LayerLoops, short_epilogue
from mpcompile.schedules.space import Space
from mpcompile.schedules.tile import (
    Tile,
    default_lines,
    divisors,
    evened,
    register_tile,
    row_of,
    tile_without_contraction,
)
from mpcompile.schedules.x86_intrinsics import dot_instruction, tile_instruction, vector_for
from mpcompile.schedules.x86_lookup import lookup
from mpcompile.schedules.x86_narrow import count8
from mpcompile.targets import Target
from mpcompile.targets.target import WIDEN_LOOKUP

SHALLOW_VECTORS = (8, 12)
"""The least and most accumulators of a tile that the epilogue decides."""


@dataclass(frozen=True)
class X86:
    """What of an x86 target decides a kernel: vector width, VNNI, fused multiply-add."""

    vector_bits: int
    vnni: bool
    native_fma: bool
    vpopcnt: bool

    kind = "cpu"
    name = x86_loops.NAME

    @staticmethod
    def of(target: Target) -> X86:
        return X86(target.vector_bits, target.has_vnni, target.has_fma, "avx512_vpopcntdq" in target.features)

    @cached_property
    def registers(self) -> int:
        return 32 if self.vector_bits == 512 else 16

    def row_tile(self, planes_w: int, planes_a: int, depth: int, channels: int) -> None:
        """It has no matrices of bits."""

    def count_instruction(self, channels: int) -> ByteCount | None:
        """None where a CPU counts 32-bit words; else how it counts bytes."""
        return None if self.vpopcnt else count8(vector_for(self.vector_bits, channels))

    def lookup(self, level_bits: int, products: int) -> Lookup:
        """The steps for levels of so many bits and sums of so many products, on AVX2."""
        bits = digit_bits(level_bits, products, WIDEN_LOOKUP)
        assert bits is not None, f"look-ups were chosen for {products} products of {level_bits} bits"
        return lookup(-(-level_bits // bits), bits)

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int) -> DotInstr:
        return dot_instruction(self.vector_bits, self.vnni, max_level, weights, channels)

    def tile_instruction(self, bits: int, channels: int) -> DotInstr | None:
        return tile_instruction(self.vector_bits, self.vnni, bits, channels)

    # -- tiles -----------------------------------------------------------------------------------
    def default_tile(self, spec: LayerSpec) -> Tile:
        """The tile that keeps most work in registers between two loads, for the layer's heaviest part."""
        parts = spec.parts
        if not parts:
            return tile_without_contraction(spec, spec.padded == IMAGE_CHANNELS)
        loops = [loops_of(self.name, p) for p in parts]
        lanes = max(inner.lanes(p) for inner, p in zip(loops, parts))
        pixels, block = self._shallow(spec) or register_tile(spec, lanes, 14, self._cost)
        row = row_of(spec.shape[2], pixels, max(inner.longest_row for inner in loops))
        held = block == spec.padded // spec.blocking[0] and pixels * (block // lanes) <= self.registers * 2 // 3
        row = pixels if held and short_epilogue(self.name, spec) and not parts[0].offset else row
        lines = default_lines(self.name, spec)
        wanted = (inner.shared(spec, part, lines) for inner, part in zip(loops, parts))
        shared = next((axis for axis in wanted if axis), "")
        unroll = loops[0].unroll(parts[0]) if len(parts) == 1 else 0
        return Tile(row, pixels, block, lines=lines, unroll=unroll, parallel=shared)

    def _shallow(self, spec: LayerSpec) -> tuple[int, int] | None:
        """(pixels, block) where a few steps make an output: a whole group, so that sums need not leave registers.

        As many pixels as leave half the registers to the epilogue.
        """
        part, channels = spec.parts[0], spec.padded // spec.blocking[0]
        loops = loops_of(self.name, part)
        if self.registers < 32 or not short_epilogue(self.name, spec) or part.offset or not loops.shallow(part):
            return None
        vectors = channels // loops.lanes(part)
        pixels = max(divisors(spec.shape[2], max(1, SHALLOW_VECTORS[1] // vectors)))
        return (pixels, channels) if pixels * vectors >= SHALLOW_VECTORS[0] else None

    def _cost(self, part: PartSpec, pixels: int, block: int) -> float | None:
        return loops_of(self.name, part).cost(part, pixels, block, self.registers, self.vector_bits)

    def space(self, spec: LayerSpec, threads: int = 1) -> Space:
        """What may be decided for a layer that runs on so many threads."""
        return Space.of(self.name, spec, self.default_tile(spec), self.registers, threads)

    def tile_from_json(self, data: dict) -> Tile:
        """Raises TypeError or ValueError where `data` is no tile."""
        return Tile.from_json(data)

    fill_halo = staticmethod(halo.serial)

    # -- the schedule ----------------------------------------------------------------------------
    def evened(self, spec: LayerSpec, tile: Tile) -> LayerSpec:
        """The layer with a line of whole rows of the tile: what `schedule` takes."""
        return evened(spec, tile)

    def schedule(self, func: PrimFunc, stages: Stages, spec: LayerSpec, tile: Tile) -> PrimFunc:
        """The scheduled PrimFunc."""
        import tvm

        return X86Layer(Schedule(tvm.IRModule({"main": func})), stages, spec, tile).apply()


class X86Layer(LayerLoops):
    architecture = x86_loops.NAME

    def cycles(self) -> float:
        """Roughly what the layer takes on one core: inner steps of whole vectors, and a few cycles a stored vector."""
        channels, height, width = self.spec.shape
        return 1.5 * height * width * self.work(channels / 2)

    def epilogue_lanes(self) -> int:
        """Lanes of int32 and float32 vectors in the epilogue."""
        lanes = [self.lanes(p) for p in self.spec.parts] or [16]
        want = min(max(lanes), 16)
        return next(n for n in (want, 16, 8, 4, 2, 1) if n <= want and self.channels % n == 0)
