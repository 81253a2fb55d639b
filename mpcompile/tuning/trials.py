"""The trials of one task: proposed, built, measured, each on disk as soon as it is; and what wins."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from mpcompile.kernels.architecture import Tile
from mpcompile.latency.cache import Line, Lines, Seconds
from mpcompile.latency.measure import Timing
from mpcompile.tuning.runner import Failed, Outcome, Timed, one_line
from mpcompile.tuning.search import TileSearch
from mpcompile.tuning.task import Builder, Task

BATCH = 16
ROUNDS = 3
"""Good samples of a trial; each is a median itself."""
CONFIRMED = 3
"""Schedules that are measured again, beside the default, before one of them is recorded."""
CONFIRM_ROUNDS = 21
LEAST_GAIN = 0.01
"""A schedule that is faster by less than this does not replace the default."""

Outcomes = Mapping[Tile, Outcome]


@dataclass(frozen=True)
class Batch:
    """Libraries to be measured, the default's among them. `told` is called with what became of some, as soon as it is
    known; `threads`: None for the runner's; `together`: all in one measurement."""

    libraries: dict[Tile, bytes]
    rounds: int
    told: Callable[[Outcomes], None] = lambda found: None
    threads: int | None = None
    together: bool = False


class Trial(Line, frozen=True):
    """A line of FAMILY.trials.jsonl: what became of `tile` for the task `task` (a hash), `title` in words.

    code: tells built code apart, "" where it did not build. cost: the time over the default's, None where there is
    none, and then `why`. The times themselves are with the tile that was measured, not with those of equal code.
    """

    task: str
    title: str
    tile: dict
    code: str
    cost: Annotated[float, Meta(gt=0, lt=1e6)] | None
    why: str | None
    seconds: Seconds | None
    default_seconds: Seconds | None

    @property
    def consistent(self) -> bool:
        if self.seconds is None or self.default_seconds is None:
            return self.seconds is self.default_seconds and (not self.why or self.cost is None)
        return self.cost is not None and math.isclose(self.cost, self.seconds / self.default_seconds, rel_tol=1e-6)


Steps = Generator[Batch, Outcomes, None]
"""Batches, one after another; what was measured of one is sent in before the next is made."""


class Trials:
    """`costs`: tile → time over the default's; inf where it did not build, or did not run to its end; `failures`: the
    reasons. `identity`: what a trial depends on beside its task and tile; `log`: where they are kept."""

    def __init__(self, task: Task, builder: Builder, log: Lines[Trial], identity: Mapping[str, str]):
        self.task, self.builder, self.log = task, builder, log
        text = json.dumps([task.text, dict(identity)], sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.costs: dict[Tile, float] = {}
        self.failures: dict[Tile, str] = {}
        self.measured: dict[str, float] = {}
        """Code → the cost of whatever tile became it."""
        for trial in log:
            if trial.task == self.identity and (tile := self._tile(trial.tile)):
                self._keep(tile, trial)
        self.known = len(self.costs)

    def search(self, search: TileSearch, count: int, first: Iterable[Tile] = ()) -> Steps:
        """Until there are `count` trials, those on disk included. `first`: tiles to begin with, beside the default."""
        search.tell(self.costs)
        begin = [t for t in dict.fromkeys([self.task.default_tile, *first]) if t not in self.costs]
        search.seen.update(begin)
        while len(self.costs) < count:
            room = min(BATCH, count - len(self.costs))
            tiles, begin = begin[:room], begin[room:]
            tiles += search.propose(room - len(tiles))
            if not tiles:
                return
            yield from self._trial(tiles)
            search.tell({t: self.costs[t] for t in tiles})

    def _trial(self, tiles: list[Tile]) -> Steps:
        default = self.task.default_tile
        made = dict(zip([default, *tiles], self._build([default, *tiles])))
        failed = {t: m for t, m in made.items() if isinstance(m, Exception)}
        built = {t: m for t, m in made.items() if isinstance(m, bytes)}
        if default in failed:
            raise failed[default]
        codes = {t: _code(library) for t, library in built.items()}
        classes: dict[str, list[Tile]] = {}
        for tile in (t for t in tiles if t in built):
            classes.setdefault(codes[tile], []).append(tile)
        self._put("", {t: Failed(f"does not build: {one_line(failed[t])}") for t in tiles if t in failed})
        for code in classes.keys() & self.measured.keys():
            self._put(code, dict.fromkeys(classes.pop(code), self.measured[code]))
        if not classes:
            return
        fresh = {default: codes[default]} | {
            members[0]: code for code, members in classes.items() if code != codes[default]
        }

        def told(found: Outcomes) -> None:
            for tile, outcome in found.items():
                members = classes.get(fresh[tile], ())
                if tile == default:  # beside each share: told once
                    members = [t for t in members if t not in self.costs]
                self._put(fresh[tile], dict.fromkeys(members, outcome))

        yield Batch({t: built[t] for t in fresh}, ROUNDS, told)

    def confirm(self, threads: int) -> Generator[Batch, Outcomes, tuple[Tile, float, float]]:
        """The best few and the default, measured in turn for longer: (the winner, its seconds, the default's).

        The default stays unless one is clearly faster on `threads` threads, and no slower on one.
        """
        default = self.task.default_tile
        good = (t for t, c in self.costs.items() if c < 1 and t != default)
        best = sorted(good, key=lambda t: self.costs[t])[:CONFIRMED]
        made: dict[Tile, bytes] = {}
        for tile, library in zip([default, *best], self._build([default, *best]), strict=True):
            if isinstance(library, Exception):  # it was built before: the machine is to blame
                raise library
            made[tile] = library
        rounds = CONFIRM_ROUNDS if best else ROUNDS
        times = _timings((yield Batch(made, rounds, threads=threads, together=True)))
        base = times[default]
        clear = [
            t
            for t in best
            if t in times and times[t].high < base.low and times[t].seconds < base.seconds * (1 - LEAST_GAIN)
        ]
        if clear and threads > 1:
            on_one = _timings((yield Batch({t: made[t] for t in [default, *clear]}, rounds, threads=1, together=True)))
            clear = [
                t for t in clear if t in on_one and on_one[t].seconds <= on_one[default].seconds * (1 + LEAST_GAIN)
            ]
        won = min(clear, key=lambda t: times[t].seconds, default=default)
        return won, times[won].seconds, base.seconds

    # -- building, and keeping -------------------------------------------------------------------------
    def _build(self, tiles: list[Tile]) -> list[bytes | Exception]:
        return self.builder.build([self.task.lowered(t) for t in tiles])

    def _put(self, code: str, found: Mapping[Tile, Outcome | float]) -> None:
        """To disk, before anything else happens to it."""
        trials = []
        for tile, outcome in found.items():
            timed = outcome if isinstance(outcome, Timed) else None
            cost = timed.cost if timed else outcome if isinstance(outcome, float) else math.inf
            trial = Trial(
                key=f"{self.identity}.{hashlib.sha256(repr(tile).encode()).hexdigest()[:16]}",
                task=self.identity,
                title=self.task.title,
                tile=tile.to_json(),
                code=code,
                cost=cost if math.isfinite(cost) else None,
                why=outcome.why if isinstance(outcome, Failed) else None,
                seconds=timed.timing.seconds if timed else None,
                default_seconds=timed.base.seconds if timed else None,
            )
            trials.append(trial)
        if trials:
            self.log.put(trials)
        for trial, tile in zip(trials, found):
            self._keep(tile, trial)

    def _tile(self, data: dict) -> Tile | None:
        """None where it is none, or one of another version."""
        try:
            return self.task.tile_from_json(data)
        except (TypeError, ValueError):
            return None

    def _keep(self, tile: Tile, trial: Trial) -> None:
        self.costs[tile] = math.inf if trial.cost is None else trial.cost
        if trial.code:
            self.measured[trial.code] = self.costs[tile]
        if trial.why:
            self.failures[tile] = trial.why


def _code(library: bytes) -> str:
    """What tells built code apart."""
    return hashlib.sha256(library).hexdigest()[:16]


def _timings(found: Outcomes) -> dict[Tile, Timing]:
    return {tile: outcome.timing for tile, outcome in found.items() if isinstance(outcome, Timed)}
