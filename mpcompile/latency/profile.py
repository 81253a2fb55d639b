"""Builds the latency table of a network: every fused layer, as a kernel of its own, timed at every pair of bits.

This room knows neither compiler nor device: a `Workbench` fuses, chooses, lowers and times. What is measured is kept
in a `Cache` at once, by shape, bits, formats, target and version; so a build that is killed goes on where it was.
Variants that lower to one kernel are one measurement: layers of one shape, and bits that a family does not see.

Each number bears the time that the measurer's reference kernel took beside it: where the device turns out to be faster
than it was then, the number is as if it had never been.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from mpcompile.errors import DeviceLost, TargetError
from mpcompile.ir.graph import Graph
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.latency.cache import Cache
from mpcompile.latency.key import key_of
from mpcompile.latency.measure import Measurement
from mpcompile.latency.planner import Cell, Planner
from mpcompile.latency.same_speed import alike
from mpcompile.latency.subgraph import Cut, Families, Readings
from mpcompile.latency.table import LatencyTable

BATCH = 24
"""Kernels that are built, then timed in turn, before the next are."""

TIMED = ("kernel", "seconds", "low", "high", "device", "reference")
"""Of a record: what any other cell of the same kernel has, too."""

Progress = Callable[[int, int], None]


class Kernel(Protocol):
    """What a layer was lowered to. Kernels of one identity take the same time."""

    identity: str


class Workbench(Protocol):
    """What compiles and measures. `identity` names everything that times depend on besides the layer: target, CPU,
    threads, versions. `lanes`: how many batches can be timed at once. `slower`: see alike."""

    identity: Mapping[str, str]
    lanes: int
    slower: float

    @property
    def families(self) -> Readings:
        """All kernel families."""
        ...

    def known(self, reference: float) -> float:
        """`reference`: the best seconds of the reference kernel that were recorded of this device; the best of that and
        what it takes now."""

    def fuse(self, graph: Graph) -> Graph:
        """The model's graph to layers."""

    def choose(self, fused: Graph) -> Families:
        """The families that compiling the fused graph would choose."""

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        """(family, cycles) of each family that can compute `part` over an input on `grid`, cheapest first."""

    def lower(self, variant: Cut) -> Kernel:
        """The variant's layer alone."""

    def time(self, batches: Sequence[Sequence[Kernel]], done: Callable[[int, Measurement | DeviceLost], None]) -> None:
        """Each batch's kernels, timed in turn, by their number in it. `done(batch, found)` as soon as a batch is; found
        is a DeviceLost where devices were lost by it; it may come again, and then counts instead of what came
        before."""


def build_table(
    graph: Graph,
    w_bits: Iterable[int],
    a_bits: Iterable[int],
    bench: Workbench,
    cache: Cache,
    *,
    progress: Progress | None = None,
) -> LatencyTable:
    """The whole table of `graph` (as a frontend made it) for these bits, and for each layer's own.

    `progress(done, total)` counts numbers; what turns out not to be worth measuring leaves the total. Raises ModelError
    naming what cannot be compiled at other bits.
    """
    plan = Planner(graph, sorted(set(w_bits)), sorted(set(a_bits)), bench)
    work = _Measured(plan, bench, cache, progress or (lambda done, total: None))
    while True:
        for wave in plan.waves(work):
            work.measure(wave)
        if not work.forget_slow():
            return plan.table(work)


class _Measured(dict):
    """Cell → seconds: what was measured, now or before."""

    def __init__(self, plan: Planner, bench: Workbench, cache: Cache, progress: Progress):
        self.plan, self.bench, self.cache, self.progress = plan, bench, cache, progress
        self.keys = {cell: key_of(cell.variant, bench.identity) for cell in plan.cells}
        self.identity = json.dumps(sorted(bench.identity.items()))
        self.device = bench.identity.get("cpu", "")
        recorded = (r["reference"] for r in cache if r.get("device") == self.device)
        self.best = bench.known(min(recorded, default=float("inf")))
        self._tell()

    def measure(self, cells: Sequence[Cell]) -> None:
        """The cells of a wave; whatever is like them in earlier waves is known already."""
        waiting: dict[str, list[tuple[Cell, Kernel]]] = {}
        known: list[dict] = []
        for cell in {self.keys[c]: c for c in cells}.values():
            if self._known(self.keys[cell]) is None:
                kernel = self.bench.lower(cell.variant)
                name = hashlib.sha256((self.identity + kernel.identity).encode()).hexdigest()[:32]
                if found := self._trusted(self.cache.of_kernel(name)):
                    known.append(self._record(cell, found))
                else:
                    waiting.setdefault(name, []).append((cell, kernel))
        if known:
            self.cache.put(known)
        self._take(cells)
        lost = self._time(_batches(list(waiting), self.bench.lanes), waiting, cells)
        alone = [[name] for batch in lost for name in batch if len(batch) > 1]
        lost = {batch: e for batch, e in lost.items() if len(batch) == 1} | self._time(alone, waiting, cells)
        for (name,), error in lost.items():
            cell, _ = waiting[name][0]
            bits = f" at {cell.index}" if cell.index else ""
            raise TargetError(f"layer {cell.layer}{bits}, {cell.form or cell.row}: devices are lost by it: {error}")

    def forget_slow(self) -> bool:
        """Takes out what was measured while the device was slow, as is known by now; whether there was any."""
        slow = [cell for cell in self if self._known(self.keys[cell]) is None]
        for cell in slow:
            del self[cell]
        return bool(slow)

    def _time(
        self, batches: Sequence[Sequence[str]], waiting: Mapping[str, list[tuple[Cell, Kernel]]], cells: Sequence[Cell]
    ) -> dict[tuple[str, ...], DeviceLost]:
        """Times these, and keeps it; the batches that devices were lost by."""
        lost: dict[tuple[str, ...], DeviceLost] = {}

        def done(at: int, found: Measurement | DeviceLost) -> None:
            if isinstance(found, DeviceLost):
                lost[tuple(batches[at])] = found
                return
            self.best = min(self.best, found.reference_best)
            for i, name in enumerate(batches[at]):
                timing = found[str(i)]
                what = {
                    "kernel": name,
                    "seconds": timing.seconds,
                    "low": timing.low,
                    "high": timing.high,
                    "device": self.device,
                    "reference": found.reference_best,
                }
                self.cache.put(self._record(cell, what) for cell, _ in waiting[name])
            self._take(cells)

        if batches:
            self.bench.time([[waiting[name][0][1] for name in batch] for batch in batches], done)
        return lost

    def _known(self, key: str) -> dict | None:
        return self._trusted(self.cache.get(key))

    def _trusted(self, record: dict | None) -> dict | None:
        """A record, but for one that was made while the device was slow."""
        if (
            record
            and record.get("device") == self.device
            and not alike(record["reference"], self.best, self.bench.slower)
        ):
            return None
        return record

    def _record(self, cell: Cell, what: dict) -> dict:
        timed = {k: what[k] for k in TIMED if k in what}
        return {
            "key": self.keys[cell],
            "layer": cell.layer,
            "row": cell.row,
            "of": cell.name,
            "bits": list(cell.index),
            "form": cell.form,
            **timed,
        }

    def _take(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if record := self._known(self.keys[cell]):
                self[cell] = record["seconds"]
        self._tell()

    def _tell(self) -> None:
        done = {self.keys[c] for c in self}
        self.progress(len(done), len(done | {self.keys[c] for c in self.plan.cells if c not in self.plan.dropped}))


def _batches(names: list[str], lanes: int) -> list[list[str]]:
    """As many as can be timed at once, or a multiple of that, all of about one size."""
    count = lanes * -(-len(names) // (BATCH * lanes))
    size = max(1, -(-len(names) // max(1, count)))
    return [names[at : at + size] for at in range(0, len(names), size)]
