"""ARM with NEON, 64-bit and 32-bit: which steps its CPUs have for a layer, and the default tiles. What is within a tile:
arm_loops.py.

On ARMv7, NEON takes subnormal float32 numbers for 0: there the epilogue's floats are scalars, which VFP computes exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpcompile.kernels import halo
from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.lookup_form import Lookup
from mpcompile.kernels.families.popcount_bytes import ByteCount
from mpcompile.kernels.spec import IMAGE_CHANNELS, LayerSpec, PartSpec
from mpcompile.kernels.stages import Stages
from mpcompile.kernels.tvm_names import PrimFunc, Schedule
from mpcompile.schedules import arm_intrinsics, arm_loops
from mpcompile.schedules.arm_intrinsics import BLOCK
from mpcompile.schedules.arm_lookup import lookup
from mpcompile.schedules.inner import loops_of
from mpcompile.schedules.loops import LayerLoops
from mpcompile.schedules.space import Space
from mpcompile.schedules.tile import Tile, default_lines, evened, register_tile, row_of, tile_without_contraction
from mpcompile.targets import Target

REGISTERS = {"aarch64": 32, "armv7l": 16}
VECTOR_BITS = 128


@dataclass(frozen=True)
class Arm:
    """What of an ARM target decides a kernel.

    core: LLVM's name, which decides the default tile.
    """

    isa: str
    dotprod: bool
    core: str

    kind = "cpu"
    name = arm_loops.NAME
    native_fma = True
    """Every core here has VFPv4 or newer."""

    @staticmethod
    def of(target: Target) -> Arm:
        return Arm(target.arch, "asimddp" in target.features, target.mcpu)

    @property
    def registers(self) -> int:
        return REGISTERS[self.isa]

    def row_tile(self, planes_w: int, planes_a: int, depth: int, channels: int) -> None:
        """It has no matrices of bits."""

    def count_instruction(self, channels: int) -> ByteCount:
        return arm_intrinsics.count(self.isa, min(channels, BLOCK))

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int) -> DotInstr:
        return arm_intrinsics.dot_instruction(
            self.isa, self.dotprod, max_level, weights, channels, self.core == "cortex-a53"
        )

    def tile_instruction(self, bits: int, channels: int) -> None:
        """None: there are no loops for tiles here."""

    def lookup(self, level_bits: int, products: int) -> Lookup:
        """The steps for levels of so many bits, and any number of products."""
        return lookup(level_bits, 2 if self.dotprod or self.core == "cortex-a53" else 1)

    # -- tiles -----------------------------------------------------------------------------------
    def default_tile(self, spec: LayerSpec) -> Tile:
        """The tile with the fewest loads and broadcasts a step that fits the registers, for the heaviest part."""
        if not spec.parts:
            return tile_without_contraction(spec, spec.padded == IMAGE_CHANNELS)
        loops = [loops_of(self.name, p) for p in spec.parts]
        lanes = max(inner.lanes(p) for inner, p in zip(loops, spec.parts))
        pixels, block = register_tile(spec, lanes, 8, self._cost)
        row = row_of(spec.shape[2], pixels, max(inner.longest_row for inner in loops))
        return Tile(row, pixels, block, default_lines(self.name, spec))

    def _cost(self, part: PartSpec, pixels: int, block: int) -> float | None:
        return loops_of(self.name, part).cost(part, pixels, block, self.registers, VECTOR_BITS)

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

        return ArmLayer(Schedule(tvm.IRModule({"main": func})), stages, spec, tile, self.isa).apply()


@dataclass
class ArmLayer(LayerLoops):
    architecture = arm_loops.NAME
    isa: str = "aarch64"

    def cycles(self) -> float:
        """Roughly what the layer takes on one core: vectors of the inner step, and a few cycles a stored vector."""
        channels, height, width = self.spec.shape
        return height * width * self.work(2.0 * channels)

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
