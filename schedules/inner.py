"""How an architecture computes the parts of one family's spec: the loops within a tile, and what decides a tile.

They are looked up by architecture and class of spec, so that a family's loops are a file of their own: whoever writes
one registers it (`register`) and makes its architecture import it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from mpcompile.errors import TargetError
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages

if TYPE_CHECKING:
    from mpcompile.schedules.loops import LayerLoops

S = TypeVar("S", bound=PartSpec)
L = TypeVar("L", bound="LayerLoops")


class InnerLoops(ABC, Generic[S, L]):
    """Of parts with specs `S` in the loops `L` of a layer."""

    longest_row: ClassVar[int] = 16
    """Pixels between two epilogues, at most, by default."""
    in_tiles: ClassVar[bool] = True
    """Whether the reduction's loops are those of the register tile; else `apply` places it."""

    @abstractmethod
    def lanes(self, part: S) -> int:
        """Output channels of a vector of the inner step, whose weights lie together."""

    @abstractmethod
    def cost(self, part: S, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        """Loads and broadcasts per arithmetic step of a register tile of so many pixels and channels; None where it
        does not fit the registers."""

    @abstractmethod
    def steps(self, part: S, padded: int) -> float:
        """Vectors of the inner step for each output pixel of so many computed channels, roughly."""

    @abstractmethod
    def apply(self, layer: L, part: PartStages[S]) -> None:
        """Schedules the part's reduction, which is at its tile, and the stages before it."""

    def taps(self, part: S) -> tuple[int, int, int]:
        """Extents of the reduction's loops: kh, kw, and that over words or steps."""
        return *part.kernel, part.weight_shape[3]

    def slots(self, part: S) -> int:
        """Accumulators of one output that a tile may hold together, or one after another (Tile.apart)."""
        return 1

    def sums_stay(self, part: S) -> bool:
        """Whether the sums of a register tile may stay in registers on their way to the epilogue."""
        return False

    def shallow(self, part: S) -> bool:
        """Whether so few steps make an output that the epilogue decides the tile."""
        return False

    def unroll(self, part: S) -> int:
        """How many of the innermost reduction loops are unrolled by default (Tile.unroll)."""
        return 0

    def line_step(self, part: S) -> int:
        """Output lines that are computed together: a group serves a multiple of them, or all."""
        return 1

    def shared(self, spec: LayerSpec, part: S, lines: int) -> str:
        """The loop that threads share by default where a group serves so many lines (Tile.parallel)."""
        return ""

    def lines(self, spec: LayerSpec, parts: list[S]) -> int | None:
        """Output lines that a group serves by default, where `parts` of a layer want more than one; None where they do
        not care."""
        return None


_LOOPS: dict[tuple[str, type[PartSpec]], InnerLoops] = {}


def register(architecture: str, spec: type[PartSpec], loops: InnerLoops) -> None:
    """From now on `loops` schedule the parts with such a spec; architecture: the `name` of one."""
    _LOOPS[architecture, spec] = loops


def unregister(architecture: str, spec: type[PartSpec]) -> None:
    """Raises KeyError where there are none."""
    del _LOOPS[architecture, spec]


def loops_of(architecture: str, part: PartSpec) -> InnerLoops:
    """Raises TargetError where the architecture has none for the part's family."""
    found = _LOOPS.get((architecture, type(part)))
    if found is None:
        raise TargetError(f"{architecture} has no loops for {type(part).__name__} of kernel family {part.family}")
    return found
