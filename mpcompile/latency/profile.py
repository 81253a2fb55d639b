"""Builds the latency table of a network: every fused layer, as a kernel of its own, timed at every pair of bits.

This room knows neither compiler nor device: a `Workbench` fuses, chooses, lowers and times. What is measured is kept
in a `Cache` at once, by shape, bits, formats, target and version; so a build that is killed goes on where it was.
Variants that lower to one kernel are one measurement: layers of one shape, and bits that a family does not see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from mpcompile.graph import Graph
from mpcompile.grid import Grid
from mpcompile.latency.cache import Cache
from mpcompile.latency.cut import Cut, Families
from mpcompile.latency.key import key_of
from mpcompile.latency.measure import Timing
from mpcompile.latency.planner import Cell, Planner
from mpcompile.latency.table import LatencyTable
from mpcompile.layer import ContractPart

BATCH = 24
"""Kernels that are built, then timed in turn, before the next are."""

Progress = Callable[[int, int], None]


class Kernel(Protocol):
    """What a layer was lowered to. Kernels of one identity take the same time."""

    identity: str


class Workbench(Protocol):
    """What compiles and measures. `identity` names everything that times depend on besides the layer: target, CPU,
    threads, versions."""

    identity: Mapping[str, str]

    def fuse(self, graph: Graph) -> Graph:
        """The model's graph to layers."""

    def choose(self, fused: Graph) -> Families:
        """The families that compiling the fused graph would choose."""

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        """(family, cycles) of each family that can compute `part` over an input on `grid`, cheapest first."""

    def lower(self, variant: Cut) -> Kernel:
        """The variant's layer alone."""

    def time(self, kernels: Sequence[Kernel]) -> list[Timing]:
        """Each kernel, timed in turn; in the order given."""


def build_table(graph: Graph, w_bits: Iterable[int], a_bits: Iterable[int], bench: Workbench, cache: Cache, *,
                progress: Progress | None = None) -> LatencyTable:
    """The whole table of `graph` (as a frontend made it) for these bits, and for each layer's own.

    `progress(done, total)` counts numbers; what turns out not to be worth measuring leaves the total. Raises ModelError
    naming what cannot be compiled at other bits.
    """
    plan = Planner(graph, sorted(set(w_bits)), sorted(set(a_bits)), bench)
    work = _Measured(plan, bench, cache, progress or (lambda done, total: None))
    for wave in plan.waves(work):
        work.measure(wave)
    return plan.table(work)


class _Measured(dict):
    """Cell → seconds: what was measured, now or before."""

    def __init__(self, plan: Planner, bench: Workbench, cache: Cache, progress: Progress):
        self.plan, self.bench, self.cache, self.progress = plan, bench, cache, progress
        self.keys = {cell: key_of(cell.variant, bench.identity) for cell in plan.cells}
        self.identity = json.dumps(sorted(bench.identity.items()))
        self._tell()

    def measure(self, cells: Sequence[Cell]) -> None:
        """The cells of a wave; whatever is like them in earlier waves is known already."""
        waiting: dict[str, list[tuple[Cell, Kernel]]] = {}
        known: list[dict] = []
        for cell in {self.keys[c]: c for c in cells}.values():
            if self.cache.get(self.keys[cell]) is None:
                kernel = self.bench.lower(cell.variant)
                name = hashlib.sha256((self.identity + kernel.identity).encode()).hexdigest()[:32]
                if found := self.cache.of_kernel(name):
                    known.append(self._record(cell, found))
                else:
                    waiting.setdefault(name, []).append((cell, kernel))
        if known:
            self.cache.put(known)
        self._take(cells)
        for batch in _batches(list(waiting)):
            timings = self.bench.time([waiting[name][0][1] for name in batch])
            for name, timing in zip(batch, timings):
                what = {"kernel": name, "seconds": timing.seconds, "low": timing.low, "high": timing.high}
                self.cache.put(self._record(cell, what) for cell, _ in waiting[name])
            self._take(cells)

    def _record(self, cell: Cell, what: dict) -> dict:
        timed = {k: what[k] for k in ("kernel", "seconds", "low", "high")}
        return {"key": self.keys[cell], "layer": cell.layer, "row": cell.row, "of": cell.name,
                "bits": list(cell.index), "form": cell.form, **timed}

    def _take(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if record := self.cache.get(self.keys[cell]):
                self[cell] = record["seconds"]
        self._tell()

    def _tell(self) -> None:
        done = {self.keys[c] for c in self}
        self.progress(len(done), len(done | {self.keys[c] for c in self.plan.cells if c not in self.plan.dropped}))


def _batches(names: list[str]) -> Iterable[list[str]]:
    for at in range(0, len(names), BATCH):
        yield names[at:at + BATCH]
