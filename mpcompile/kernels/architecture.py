"""What kernels, records and tuning ask of an architecture. Each one of mpcompile.schedules implements it.

What a schedule decides (`Tile`) and which decisions there are (`Space`) belong to the architecture: a GPU's are others
than a CPU's. All that everybody else does with a tile is to compare it, to keep it as JSON and to hand it back.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mpcompile.ir.formats import Buffer
from mpcompile.kernels.spec import LayerSpec
from mpcompile.kernels.stages import Stages

if TYPE_CHECKING:
    from mpcompile.kernels.families.dot_step import DotInstr
    from mpcompile.kernels.families.lookup_form import Lookup
    from mpcompile.kernels.families.popcount_bytes import ByteCount
    from mpcompile.kernels.families.popcount_rows import RowTile
    from mpcompile.kernels.tvm_names import PrimFunc


class Tile(Hashable, Protocol):
    """What a schedule decides. No decision changes a byte of what a layer writes."""

    def to_json(self) -> dict: ...


T = TypeVar("T", bound=Tile)


class Space(Protocol[T]):
    """Every schedule of a layer that tuning may try."""

    @property
    def spec(self) -> LayerSpec: ...

    @property
    def choices(self) -> Mapping[str, tuple]:
        """Each decision by its name → its values."""
        ...

    def holds(self, tile: T) -> bool:
        """Whether `tile` is a point of this space."""
        ...

    def tiles(self) -> list[T]:
        """All points, in a fixed order."""
        ...

    def tile(self, decisions: Mapping[str, object]) -> T:
        """The tile of one value for each decision, whether or not it is a point."""
        ...

    def features(self, tile: T) -> list[float]:
        """What decides a tile's speed, for a cost model: as many numbers for every tile of every layer."""
        ...


class Architecture(Protocol[T]):
    """Equal ones make equal code of equal specs; their repr tells them apart."""

    @property
    def name(self) -> str:
        """What its loops are registered under (schedules/inner.py)."""
        ...

    @property
    def kind(self) -> str:
        """The kind of device whose primitives its kernels use (primitives.py)."""
        ...

    @property
    def native_fma(self) -> bool:
        """Whether a fused multiply-add is an instruction, not a call of the C library."""
        ...

    def row_tile(self, planes_w: int, planes_a: int, depth: int, channels: int) -> RowTile | None:
        """The tile of a product of matrices of bits, for so many planes, products of an output and computed channels; None
        where it has none, or where it would not pay."""
        ...

    def count_instruction(self, channels: int) -> ByteCount | None:
        """How it counts bits of bytes for a layer of so many computed channels; None where it counts words."""
        ...

    def dot_instruction(self, max_level: int, weights: tuple[int, int], channels: int) -> DotInstr:
        """The exact step for levels 0..max_level, weights (least, greatest) and so many computed channels."""
        ...

    def tile_instruction(self, bits: int, channels: int) -> DotInstr | None:
        """The step of products of any operands of so many bits, whose sums are mod 2³² (`wrapping`): int16 of both, or
        uint8 of levels and int8 of weights. None where it has none for so many computed channels."""
        ...

    def lookup(self, level_bits: int, products: int) -> Lookup:
        """The steps for levels of so many bits and sums of so many products; only where the target has look-ups."""
        ...

    def default_tile(self, spec: LayerSpec) -> T:
        """The tile that a layer gets when nothing was measured."""
        ...

    def space(self, spec: LayerSpec, threads: int = 1) -> Space[T]:
        """What may be decided for a layer that runs on so many threads."""
        ...

    def tile_from_json(self, data: dict) -> T:
        """The tile whose to_json was `data`. Raises TypeError or ValueError where it is no tile of this architecture."""
        ...

    def evened(self, spec: LayerSpec, tile: T) -> LayerSpec:
        """The layer of which `schedule` is handed the expressions: where no tile divides a line, one that is longer
        (overlap.py)."""
        ...

    def schedule(self, func: PrimFunc, stages: Stages, spec: LayerSpec, tile: T) -> PrimFunc:
        """The scheduled function of a layer's expressions."""
        ...

    def fill_halo(self, whole: Any, buffer: Buffer) -> list:
        """Statements that fill the halo of a stored buffer (halo.py), of which `whole` is TVM's."""
        ...
