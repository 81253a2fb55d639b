"""Tuning a network: each distinct layer's schedules measured, the best confirmed, and what won written as records.

    for each layer: the default, then batches of schedules that the search proposes: built side by side, timed in turn
    with the default and the measurer's reference kernel; each trial is on disk before the next batch is chosen
    then the best three and the default once more, for longer: a schedule replaces the default only where it is faster
    by more than both spread

A trial's cost is its time over the default's in the same measurement, so trials of hours, or runs, apart can be
compared: a machine that has slowed down has slowed both. Built code that was measured already is not measured again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mpcompile import cpu
from mpcompile.errors import TargetError, UsageError
from mpcompile.graph import Graph
from mpcompile.latency.cache import Cache
from mpcompile.records.key import text_of
from mpcompile.records.store import Record, family_of, read_records, write_records
from mpcompile.schedules.tile import Tile
from mpcompile.targets import Target, load_target
from mpcompile.tuning.runner import LocalRunner, Runner
from mpcompile.tuning.search import CostModel, Search
from mpcompile.tuning.task import Builder, LocalBuilder, Task, tasks_of

BATCH = 16
ROUNDS = 3
"""Good samples of a trial; each is a median itself."""
CONFIRMED = 3
"""Schedules that are measured again, beside the default, before one of them is recorded."""
CONFIRM_ROUNDS = 21
LEAST_GAIN = 0.01
"""A schedule that is faster by less than this does not replace the default."""

Progress = Callable[[int, int, str], None]
"""(trials done, trials in all, the layer)"""


@dataclass(frozen=True)
class Tuned:
    """What tuning found. `new`: trials measured in this run, the others were on disk; `repeated` and `corrected`:
    samples of them that the measurer took again, or corrected, because the machine was disturbed."""

    records: list[tuple[list[str], Record]]
    path: Path
    new: int
    known: int
    repeated: int
    corrected: int

    def to_json(self) -> dict:
        return {"records": str(self.path), "trials": self.new, "trials_on_disk": self.known,
                "samples_repeated": self.repeated, "samples_corrected": self.corrected,
                "layers": [{"layers": names, **asdict(record), "gain": record.gain} for names, record in self.records]}


def tune(model: str | os.PathLike | Graph, target: str | os.PathLike | Target = "native",
         records: str | os.PathLike = "records", *, trials: int = 64, threads: int | None = 1,
         progress: Progress | None = None) -> Tuned:
    """Measures up to `trials` schedules of each distinct layer of `model` here, compiled for `target`.

    records: a folder. What won goes to FAMILY.json in it, for compile_model(records=…), and each trial at once to
    FAMILY.trials.jsonl; so tuning can be stopped at any moment and goes on where it was. Raises MpError's subclasses.
    """
    from mpcompile.frontend import load

    if trials < 1:
        raise UsageError(f"trials must be at least 1, not {trials}")
    board = target if isinstance(target, Target) else load_target(target)
    check_host(board)
    graph = model if isinstance(model, Graph) else load(Path(model))
    folder = Path(records)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write records into {folder}: {error.strerror}") from error
    runner = LocalRunner(threads)
    builder = LocalBuilder(board, len(cpu.allowed()))
    try:
        return Tuner(board, folder, runner, builder, trials, progress).run(tasks_of(graph, board, runner.threads))
    finally:
        builder.close()


def check_host(target: Target) -> None:
    """Raises TargetError where this machine cannot run what is built for `target`."""
    missing = sorted(set(target.features) - cpu.features()) if target.arch == cpu.arch() else []
    if target.arch != cpu.arch() or missing:
        lacks = f"lacks {', '.join(missing)}" if missing else f"is {cpu.arch()}"
        raise TargetError(f"schedules for {target.name} cannot be measured here: this machine {lacks}")


class Tuner:
    """Tunes tasks for `target`, measured by `runner`; `folder` holds records and trials."""

    def __init__(self, target: Target, folder: Path, runner: Runner, builder: Builder, trials: int,
                 progress: Progress | None = None):
        self.target, self.runner, self.builder, self.trials = target, runner, builder, trials
        self.progress = progress or (lambda done, total, title: None)
        self.family = family_of(target)
        self.path = folder / f"{self.family}.json"
        self.log = Cache(folder / f"{self.family}.trials.jsonl")
        self.records = {text_of(r.key): r for r in read_records(self.path, self.family)} if self.path.exists() else {}
        self.identity = {**runner.identity, **_versions(), "target": target.to_json()}
        self.model = CostModel()
        self.new = self.known = self.repeated = self.corrected = 0

    def run(self, tasks: list[Task]) -> Tuned:
        wanted = [min(self.trials, max(1, len(t.space.tiles()))) for t in tasks]
        done, total = 0, sum(wanted)
        found = []
        for task, count in zip(tasks, wanted):
            say = lambda n, done=done, count=count, task=task: self.progress(done + min(n, count), total, task.title)
            found.append((task.layers, self.task(task, count, say)))
            done += count
        return Tuned(found, self.path, self.new, self.known, self.repeated, self.corrected)

    # -- one layer -----------------------------------------------------------------------------------
    def task(self, task: Task, count: int, say: Callable[[int], None]) -> Record:
        """Its record, after `count` trials, those on disk included."""
        say(0)
        search = Search(task.text, task.space, self.target.tvm_dict(), self.model, _seed(task.text))
        work = _Work(self, task)
        search.tell(work.costs)
        self.known += len(work.costs)
        say(len(work.costs))
        if not work.costs:
            search.tell(work.measure([task.default_tile]))
        while len(work.costs) < count:
            tiles = search.propose(min(BATCH, count - len(work.costs)))
            if not tiles:
                break
            search.tell(work.measure(tiles))
            say(len(work.costs))
        record = self.records.get(task.text)
        if record is None or record.trials < len(work.costs) or not self._current(record):
            record = self.records[task.text] = work.confirmed()
            write_records(self.path, self.family, self.records.values())
        return record

    def _current(self, record: Record) -> bool:
        mine = self.identity
        return (record.cpu, record.threads, record.tvm, record.kernels) == (
            mine["cpu"], int(mine["threads"]), mine["tvm"], mine["kernels"])


class _Work:
    """The trials of one task. `costs`: tile → time over the default's; inf where it did not build."""

    def __init__(self, tuner: Tuner, task: Task):
        self.tuner, self.task = tuner, task
        self.costs: dict[Tile, float] = {}
        self.built: dict[str, Tile] = {}
        text = json.dumps([task.text, tuner.identity], sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.libraries: dict[Tile, bytes] = {}
        for trial in tuner.log:
            if trial.get("task") == self.identity:
                tile = Tile.from_json(trial["tile"])
                self.costs[tile] = math.inf if trial["cost"] is None else trial["cost"]
                self.built.setdefault(trial["code"], tile)

    def measure(self, tiles: list[Tile]) -> dict[Tile, float]:
        """Builds and times these; what code was measured already has its cost. Everything is on disk at the end."""
        default = self.task.default_tile
        self.build([default, *tiles])
        code = {t: hashlib.sha256(self.libraries[t]).hexdigest()[:16] if t in self.libraries else "" for t in tiles}
        fresh: dict[str, Tile] = {}
        for tile in tiles:
            if code[tile] and code[tile] not in self.built:
                fresh.setdefault(code[tile], tile)
        measured = self.time([default, *fresh.values()], ROUNDS)
        base = measured[default]
        found, lines = {}, []
        for tile in tiles:
            first = fresh.get(code[tile])
            if not code[tile]:
                cost, timing = math.inf, None
            elif first is not None:
                cost, timing = measured[first].seconds / base.seconds, measured[first]
            else:
                cost, timing = self.costs[self.built[code[tile]]], None
            found[tile] = cost
            lines.append({"key": f"{self.identity}.{hashlib.sha256(repr(tile).encode()).hexdigest()[:16]}",
                          "task": self.identity, "title": self.task.title, "tile": tile.to_json(), "code": code[tile],
                          "cost": cost if math.isfinite(cost) else None,
                          "seconds": timing.seconds if timing else None, "default_seconds": base.seconds})
        self.tuner.log.put(lines)
        self.built.update({c: t for c, t in fresh.items()})
        self.costs.update(found)
        self.tuner.new += len(tiles)
        self.libraries = {default: self.libraries[default]}
        return found

    def build(self, tiles: Iterable[Tile]) -> None:
        missing = [t for t in dict.fromkeys(tiles) if t not in self.libraries]
        made = self.tuner.builder.build([self.task.lowered(t) for t in missing])
        self.libraries |= {t: lib for t, lib in zip(missing, made) if isinstance(lib, bytes)}
        if self.task.default_tile not in self.libraries:
            raise made[0]

    def time(self, tiles: list[Tile], rounds: int) -> dict:
        tiles = list(dict.fromkeys(tiles))
        kernels = {str(i): (self.task.lowered(t), self.libraries[t]) for i, t in enumerate(tiles)}
        found = self.tuner.runner.time(kernels, rounds)
        self.tuner.repeated += found.repeated
        self.tuner.corrected += found.corrected
        return {t: found[str(i)] for i, t in enumerate(tiles)}

    def confirmed(self) -> Record:
        """The best few and the default, measured in turn for longer; the default stays unless one is clearly faster."""
        default = self.task.default_tile
        best = sorted((t for t, c in self.costs.items() if c < 1 and t != default), key=self.costs.get)[:CONFIRMED]
        self.build([default, *best])
        times = self.time([default, *best], CONFIRM_ROUNDS if best else ROUNDS)
        base, won = times[default], default
        for tile in best:
            timing = times[tile]
            if timing.seconds < times[won].seconds and timing.high < base.low \
                    and timing.seconds < base.seconds * (1 - LEAST_GAIN):
                won = tile
        mine = self.tuner.identity
        return Record(self.task.key, won.to_json(), times[won].seconds, base.seconds, default.to_json(), mine["cpu"],
                      int(mine["threads"]), len(self.costs), mine["tvm"], mine["kernels"])


def _seed(text: str) -> int:
    """The same for a layer in every run, so that tuning can be repeated."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:3])


def _versions() -> dict[str, str]:
    """TVM's version, and a hash of the sources that decide what code a schedule becomes."""
    from mpcompile import kernels, schedules
    from mpcompile.runtime.archive import tvm_version

    digest = hashlib.sha256()
    for room in (kernels, schedules):
        for path in sorted(Path(room.__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
    return {"tvm": tvm_version(), "kernels": digest.hexdigest()[:16]}
