"""What a schedule is told of a layer's tensor expressions: the names of its stages, by what they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mpcompile.kernels.spec import PartSpec

S = TypeVar("S", bound=PartSpec, covariant=True)


@dataclass(frozen=True)
class PartStages(Generic[S]):
    """One part of a contraction: its spec and its reduction's stage. A family with more stages derives a record of its
    own, with a field for each."""

    spec: S
    reduction: str


@dataclass(frozen=True)
class StoredStage:
    """What writes an argument in a stored format, "channels_last" where a plain one has them so. bits: of planes, the
    stage before, which adds their bits up."""

    name: str
    format: str
    bits: str = ""


@dataclass
class Stages:
    """Names of a layer's stages.

    `parts`: those of all contractions, in the order of terms and parts. `stored`: of every argument written, sums after
    their source.
    """

    parts: list[PartStages] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    accumulators: list[str] = field(default_factory=list)
    pools: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    stored: list[StoredStage] = field(default_factory=list)
