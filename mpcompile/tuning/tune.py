"""Tuning a network: each distinct layer's schedules measured, the best confirmed, and what won written as records.

    for each layer: the default, what compiling takes today, then batches of schedules that the search proposes: built
    side by side, timed in turn with the default and the measurer's reference kernel; each trial is on disk before the
    next batch is chosen
    then the best three and the default once more, for longer: a schedule replaces the default only where it is faster
    by more than both spread

A trial's cost is its time over the default's in the same measurement, so trials of hours, runs or devices apart can be
compared: a machine that has slowed down has slowed both. Built code that was measured already is not measured again.
Where the devices are other machines, two layers take turns: one is built here while the other is measured there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from mpcompile.kernels.architecture import Tile
from mpcompile.latency.cache import Lines
from mpcompile.latency.fingerprint import measured_code
from mpcompile.latency.measure import Measurement
from mpcompile.latency.progress import LayerProgress
from mpcompile.records.choose import TunedTiles
from mpcompile.records.store import Record, family_of, read_records, records_for, write_records
from mpcompile.runtime.archive import tvm_version
from mpcompile.targets import Target
from mpcompile.tuning.runner import BASE, Outcome, Runner
from mpcompile.tuning.search import CostModel, TileSearch
from mpcompile.tuning.task import Builder, Task
from mpcompile.tuning.trials import Batch, Outcomes, Trial, Trials
from mpcompile.tuning.turns import in_turn


@dataclass
class Tuned:
    """What tuning found. `new`: trials measured in this run; `known`: those that were on disk; `repeated` and
    `corrected`: samples that the measurer took again, or corrected, because a machine was disturbed; `failures`: layer
    → why trials of it failed."""

    path: Path
    records: list[tuple[list[str], Record]] = field(default_factory=list)
    new: int = 0
    known: int = 0
    repeated: int = 0
    corrected: int = 0
    failures: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict:
        return {
            "records": str(self.path),
            "trials": self.new,
            "trials_on_disk": self.known,
            "samples_repeated": self.repeated,
            "samples_corrected": self.corrected,
            "failures": self.failures,
            "layers": [
                {"layers": names, **structs.asdict(record), "gain": record.gain} for names, record in self.records
            ],
        }


class Tuner:
    """Tunes tasks for `target`, measured by `runner`; `folder` holds records and trials."""

    def __init__(
        self,
        target: Target,
        folder: Path,
        runner: Runner,
        builder: Builder,
        trials: int,
        progress: LayerProgress | None = None,
    ):
        self.target, self.folder, self.runner, self.builder, self.trials = target, folder, runner, builder, trials
        self.progress = progress or (lambda done, total, title: None)
        self.family = family_of(target)
        path = folder / f"{self.family}.json"
        self.found = Tuned(path)
        self.log = Lines(folder / f"{self.family}.trials.jsonl", Trial)
        self.records = {r.identity: r for r in read_records(path, self.family)} if path.exists() else {}
        self.compiled = TunedTiles(records_for(target, folder if self.records else None))
        self.identity = {
            **runner.identity,
            "tvm": tvm_version(),
            "kernels": measured_code(),
            "target": target.to_json(),
        }
        self.model = CostModel()

    def run(self, tasks: Sequence[Task]) -> Tuned:
        found = self.found
        works = [Trials(task, self.builder, self.log, self.identity) for task in tasks]
        counts = [min(self.trials, max(1, len(task.space.tiles()))) for task in tasks]
        found.known = sum(work.known for work in works)
        shown = {work: min(work.known, count) for work, count in zip(works, counts)}

        def show(work: Trials, count: int) -> None:
            shown[work] = min(len(work.costs), count)
            self.progress(sum(shown.values()), sum(counts), work.task.title)

        steps = [
            self.steps(work, count, lambda work=work, count=count: show(work, count))
            for work, count in zip(works, counts)
        ]
        in_turn(steps, 2 if self.runner.elsewhere else 1)
        found.new = sum(len(work.costs) for work in works) - found.known
        found.failures = {work.task.title: list(work.failures.values()) for work in works if work.failures}
        found.records = [(task.layers, self.records[Record.name(task.key, self.runner.threads)]) for task in tasks]
        return found

    # -- one layer -----------------------------------------------------------------------------------
    def steps(self, work: Trials, count: int, show: Callable[[], None]) -> Generator[Callable, Outcomes, None]:
        """What is to be measured of a layer, one after another, until its record is written."""
        task = work.task
        show()
        search = TileSearch(task.text, task.space, self.target, self.model, _seed(task.text))
        spec, architecture = task.default.spec, task.default.architecture
        taken = self.compiled(spec, architecture)[0]
        batches = work.search(search, count, [taken] if task.space.holds(taken) else [])
        yield from _measured(batches, lambda batch: self.measure(work, batch, show))
        record = self.records.get(Record.name(task.key, self.runner.threads))
        if record is None or record.trials < len(work.costs) or not self._current(record):
            confirm = work.confirm(self.runner.threads)
            won, seconds, before = yield from _measured(confirm, lambda batch: self.measure(work, batch, show))
            self._record(work, won, seconds, before)

    def measure(self, work: Trials, batch: Batch, show: Callable[[], None]) -> Outcomes:
        """Times a batch; what became of each is on disk at once."""
        default = work.task.default_tile
        tiles = {str(i): tile for i, tile in enumerate(batch.libraries) if tile != default}
        kernels = {name: work.task.kernel(batch.libraries[tile]) for name, tile in tiles.items()}
        found: dict[Tile, Outcome] = {}

        def done(outcomes: Mapping[str, Outcome], measurement: Measurement | None) -> None:
            if measurement is not None:
                self.found.repeated += measurement.repeated
                self.found.corrected += measurement.corrected
            part = {default if name == BASE else tiles[name]: outcome for name, outcome in outcomes.items()}
            found.update(part)
            batch.told(part)
            show()

        base = work.task.kernel(batch.libraries[default])
        self.runner.time(base, kernels, batch.rounds, done, threads=batch.threads, together=batch.together)
        return found

    def _record(self, work: Trials, won: Tile, seconds: float, before: float) -> None:
        mine, task = self.identity, work.task
        record = Record(
            task.key,
            won.to_json(),
            seconds,
            before,
            task.default_tile.to_json(),
            mine["cpu"],
            self.runner.threads,
            len(work.costs),
            mine["tvm"],
            mine["kernels"],
        )
        self.records[record.identity] = record
        write_records(self.found.path, self.family, self.records.values())

    def _current(self, record: Record) -> bool:
        mine = self.identity
        return (record.cpu, record.tvm, record.kernels) == (mine["cpu"], mine["tvm"], mine["kernels"])


def _measured(batches, measure: Callable[[Batch], Outcomes]):
    """The generator `batches`, each batch as a call that measures it."""
    found = None
    while True:
        try:
            batch = batches.send(found)
        except StopIteration as end:
            return end.value
        found = yield lambda batch=batch: measure(batch)


def _seed(text: str) -> int:
    """The same for a layer in every run, so that tuning can be repeated."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:3])
