"""Builds the latency table of a network: every fused layer, as a kernel of its own, timed at every pair of bits.

This room knows neither compiler nor device: a `Workbench` fuses, chooses, lowers and times. What is measured is kept
in a `Cache` at once, by shape, bits, formats, target and version; so a build that is killed goes on where it was, less
the one measurement of a few kernels that it was in.
Variants that lower to one kernel are one measurement: layers of one shape, and bits that a family does not see.

Each number bears the time that the measurer's reference kernel took beside it: where the device turns out to be faster
than it was then, the number is as if it had never been.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from mpcompile.errors import DeviceLost, TargetError
from mpcompile.ir.bits import BitCandidates
from mpcompile.ir.graph import Graph
from mpcompile.latency.cache import Cache, CellTime
from mpcompile.latency.key import key_of
from mpcompile.latency.measure import Measurement
from mpcompile.latency.planner import Cell, Planner
from mpcompile.latency.progress import Progress
from mpcompile.latency.same_speed import same_speed
from mpcompile.latency.table import LatencyTable
from mpcompile.latency.workbench import LoweredLayer, Workbench

BATCHES = 16
"""That a device is given together: how large they are is asked anew when all have been timed."""

FASTER = 30.0
"""No device is so many times faster than it is now: a line of the cache that says so is damaged."""


def build_table(
    graph: Graph,
    bits: BitCandidates,
    bench: Workbench,
    cache: Cache,
    *,
    progress: Progress | None = None,
) -> LatencyTable:
    """The whole table of `graph` (as a frontend made it) for these bits, and for each layer's own.

    `progress(done, total)` counts numbers; what turns out not to be worth measuring leaves the total. Raises ModelError
    naming what cannot be compiled at other bits.
    """
    plan = Planner(graph, bits, bench)
    work = _Measured(plan, bench, cache, progress or (lambda done, total: None))
    while True:
        for wave in plan.waves(work):
            work.measure(wave)
        if not work.forget_slow():
            return plan.table(work)


class _Measured(dict[Cell, float]):
    """Cell → seconds: what was measured, now or before."""

    def __init__(self, plan: Planner, bench: Workbench, cache: Cache, progress: Progress):
        self.plan, self.bench, self.cache, self.progress = plan, bench, cache, progress
        self.key_of = {cell: key_of(cell.subgraph, bench.identity) for cell in plan.cells}
        self.identity = json.dumps(sorted(bench.identity.items()))
        self.device = bench.identity.get("cpu", "")
        self.least = bench.known(float("inf")) / FASTER
        recorded = (line.reference for line in cache if line.device == self.device and line.reference > self.least)
        self.best = bench.known(min(recorded, default=float("inf")))
        self._tell()

    def measure(self, cells: Sequence[Cell]) -> None:
        """The cells of a wave; whatever is like them in earlier waves is known already."""
        waiting: dict[str, list[tuple[Cell, LoweredLayer]]] = {}
        known: list[CellTime] = []
        for cell in {self.key_of[c]: c for c in cells}.values():
            if self._known(self.key_of[cell]) is None:
                kernel = self.bench.lower(cell.subgraph)
                name = hashlib.sha256((self.identity + kernel.identity).encode()).hexdigest()[:32]
                if found := self._trusted(self.cache.of_kernel(name)):
                    known.append(self._placed(cell, found))
                else:
                    waiting.setdefault(name, []).append((cell, kernel))
        if known:
            self.cache.put(known)
        self._take(cells)
        lost: dict[tuple[str, ...], DeviceLost] = {}
        left = list(waiting)
        while left:
            devices, at_once = max(1, self.bench.devices_at_once), self.bench.at_once
            some, left = left[: BATCHES * devices * at_once], left[BATCHES * devices * at_once :]
            lost |= self._time(_batches(some, devices, at_once), waiting, cells)
        single_batches = [[name] for batch in lost for name in batch if len(batch) > 1]
        lost = {batch: e for batch, e in lost.items() if len(batch) == 1} | self._time(single_batches, waiting, cells)
        for (name,), error in lost.items():
            cell, _ = waiting[name][0]
            bits = f" at {cell.index}" if cell.index else ""
            raise TargetError(f"layer {cell.layer}{bits}, {cell.form or cell.row}: devices are lost by it: {error}")

    def forget_slow(self) -> bool:
        """Takes out what was measured while the device was slow, as is known by now; whether there was any."""
        slow = [cell for cell in self if self._known(self.key_of[cell]) is None]
        for cell in slow:
            del self[cell]
        return bool(slow)

    def _time(
        self,
        batches: Sequence[Sequence[str]],
        waiting: Mapping[str, list[tuple[Cell, LoweredLayer]]],
        cells: Sequence[Cell],
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
                times = timing.seconds, timing.low, timing.high
                self.cache.put(
                    CellTime(*self._place(cell), name, *times, self.device, found.reference_best)
                    for cell, _ in waiting[name]
                )
            self._take(cells)

        if batches:
            self.bench.time([[waiting[name][0][1] for name in batch] for batch in batches], done)
        return lost

    def _known(self, key: str) -> CellTime | None:
        return self._trusted(self.cache.get(key))

    def _trusted(self, line: CellTime | None) -> CellTime | None:
        """A line, but for one that was made while the device was slow, or as fast as no device is."""
        if line and line.device == self.device:
            if line.reference <= self.least or not same_speed(line.reference, self.best, self.bench.slower):
                return None
        return line

    def _place(self, cell: Cell) -> tuple[str, str, str, str, tuple[int, ...], str]:
        return self.key_of[cell], cell.layer, cell.row, cell.name, cell.index, cell.form

    def _placed(self, cell: Cell, like: CellTime) -> CellTime:
        """The same times, for another cell of the same kernel."""
        return CellTime(*self._place(cell), like.kernel, like.seconds, like.low, like.high, like.device, like.reference)

    def _take(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            if line := self._known(self.key_of[cell]):
                self[cell] = line.seconds
        self._tell()

    def _tell(self) -> None:
        done = {self.key_of[c] for c in self}
        self.progress(len(done), len(done | {self.key_of[c] for c in self.plan.cells if c not in self.plan.dropped}))


def _batches(names: list[str], devices_at_once: int, most: int) -> list[list[str]]:
    """As many as there are devices, or a multiple of that, all of about one size, at most `most`."""
    count = devices_at_once * -(-len(names) // (most * devices_at_once))
    size = max(1, -(-len(names) // max(1, count)))
    return [names[at : at + size] for at in range(0, len(names), size)]
