"""What this room asks of compiler and devices, which it does not know: to fuse, to choose, to lower and to time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mpcompile.errors import DeviceLost
from mpcompile.ir.graph import Graph
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.latency.measure import Measurement
from mpcompile.latency.subgraph import Families, Readings, Subgraph


class LoweredLayer(Protocol):
    """What a layer was lowered to. Those of one identity take the same time."""

    @property
    def identity(self) -> str: ...


class Workbench(Protocol):
    """What compiles layers and measures them."""

    @property
    def identity(self) -> Mapping[str, str]:
        """All that times depend on besides the layer: target, CPU, threads, versions."""
        ...

    @property
    def devices_at_once(self) -> int:
        """How many batches can be timed side by side."""
        ...

    @property
    def at_once(self) -> int:
        """How many kernels one measurement should time: what a kill in the middle of it costs."""
        ...

    @property
    def slower(self) -> float:
        """See same_speed."""
        ...

    @property
    def families(self) -> Readings:
        """All kernel families."""
        ...

    def known(self, reference: float) -> float:
        """`reference`: the best seconds of the reference kernel that were recorded of this device; the best of that and
        what it takes now."""
        ...

    def fuse(self, graph: Graph) -> Graph:
        """The model's graph to layers."""
        ...

    def choose(self, fused: Graph) -> Families:
        """The families that compiling the fused graph would choose."""
        ...

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        """(family, cycles) of each family that can compute `part` over an input on `grid`, cheapest first."""
        ...

    def lower(self, subgraph: Subgraph) -> LoweredLayer:
        """The kernel of the subgraph's layer, without its stand-ins."""
        ...

    def time(self, batches: Sequence[Sequence[Any]], done: Callable[[int, Measurement | DeviceLost], None]) -> None:
        """Each batch's kernels, all made by `lower`, timed in turn, by their number in it. `done(batch, found)` as soon
        as a batch is; found is a DeviceLost where devices were lost by it; it may come again, and then counts instead of
        what came before."""
        ...
