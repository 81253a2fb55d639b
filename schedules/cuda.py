"""CUDA devices: which steps they have for a layer, and the default tiles. What is within a kernel: cuda_threads.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from math import log2, prod
from typing import ClassVar

from mpcompile.errors import TargetError
from mpcompile.kernels import halo
from mpcompile.kernels.families.dot_step import DotInstr
from mpcompile.kernels.families.lookup_form import Lookup
from mpcompile.kernels.families.popcount_rows import RowTile
from mpcompile.kernels.spec import LayerSpec
from mpcompile.kernels.stages import Stages
from mpcompile.kernels.tvm_names import PrimFunc, Schedule
from mpcompile.schedules import cuda_tensor, cuda_threads
from mpcompile.schedules.cuda_intrinsics import DP4A
from mpcompile.targets import Target

LEAST, MOST = 50, 90
"""Compute capabilities for which the kernels were checked, times ten: from sm_100 on b1 tensor cores are emulated."""
DP4A_FROM = 61
B1_FROM = 80
"""Tensor cores of single bits that AND; those of sm_75 only XOR."""
LANES = 16
"""Output channels whose weights lie together: neighbouring threads read them at once."""


@dataclass(frozen=True)
class CudaTile:
    """threads: of a block, at most; it has the largest number of them that divides the layer's."""

    threads: int = 128

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(d: dict) -> CudaTile:
        """Raises TypeError or ValueError where `d` is no tile."""
        tile = CudaTile(**d)
        if type(tile.threads) is not int or not 1 <= tile.threads <= 1024:
            raise ValueError(f"threads must be a whole number up to 1024, not {tile.threads!r}")
        return tile


@dataclass(frozen=True)
class CudaSpace:
    """`choices`: each field of CudaTile → its values."""

    spec: LayerSpec
    choices: Mapping[str, tuple]

    def holds(self, tile: CudaTile) -> bool:
        return all(getattr(tile, name) in values for name, values in self.choices.items())

    def tiles(self) -> list[CudaTile]:
        return [self.tile(dict(zip(self.choices, values))) for values in product(*self.choices.values())]

    def tile(self, decisions: Mapping[str, object]) -> CudaTile:
        return CudaTile.from_json(dict(decisions))

    def features(self, tile: CudaTile) -> list[float]:
        channels, height, width = self.spec.shape
        products = sum(prod(p.weight_shape) for p in self.spec.parts) or 1
        return [log2(n) for n in (tile.threads, channels, height, width, products)]


@dataclass(frozen=True)
class Cuda:
    """What of a CUDA device decides a kernel: DP4A, tensor cores of single bits."""

    dp4a: bool
    b1: bool

    kind: ClassVar[str] = "cuda"
    name: ClassVar[str] = "cuda"
    native_fma: ClassVar[bool] = True

    @staticmethod
    def of(target: Target) -> Cuda:
        """Raises TargetError where its `arch` is none that there are schedules for."""
        found = re.fullmatch(r"sm_(\d+)", target.arch)
        if not found or not LEAST <= int(found[1]) <= MOST:
            raise TargetError(
                f"target {target.name}: there are no schedules for CUDA devices of {target.arch}: "
                f"supported are sm_{LEAST} to sm_{MOST}"
            )
        return Cuda(int(found[1]) >= DP4A_FROM, int(found[1]) >= B1_FROM)

    def row_tile(self, planes_w: int, planes_a: int, depth: int, channels: int) -> RowTile | None:
        return cuda_tensor.row_tile(planes_w, planes_a, depth, channels) if self.b1 else None

    def count_instruction(self, channels: int) -> None:
        """Words of 32 bits are counted."""

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int) -> DotInstr:
        """Four products of unsigned and signed bytes; without DP4A one by one."""
        return DotInstr(DP4A if self.dp4a else "", LANES, 4, "uint8", "int8")

    def tile_instruction(self, bits: int, channels: int) -> None:
        """It has no Winograd."""

    def lookup(self, level_bits: int, products: int) -> Lookup:
        raise TargetError("CUDA devices have no look-ups")

    # -- tiles -----------------------------------------------------------------------------------
    def default_tile(self, spec: LayerSpec) -> CudaTile:
        return CudaTile()

    def space(self, spec: LayerSpec, threads: int = 1) -> CudaSpace:
        return CudaSpace(spec, {"threads": (32, 64, 128, 256)})

    def tile_from_json(self, data: dict) -> CudaTile:
        """Raises TypeError or ValueError where `data` is no tile."""
        return CudaTile.from_json(data)

    fill_halo = staticmethod(halo.by_threads)

    # -- the schedule ----------------------------------------------------------------------------
    def evened(self, spec: LayerSpec, tile: CudaTile) -> LayerSpec:
        return spec

    def schedule(self, func: PrimFunc, stages: Stages, spec: LayerSpec, tile: CudaTile) -> PrimFunc:
        """The scheduled PrimFunc."""
        import tvm

        return cuda_threads.Threads(Schedule(tvm.IRModule({"main": func})), stages, spec, tile.threads).apply()
