"""The trials of one task: proposed, built, measured, each on disk as soon as it is; and what wins."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass

from mpcompile.kernels.architecture import Tile
from mpcompile.latency.cache import Cache
from mpcompile.tuning.runner import Failed, Outcome, Timed, one_line
from mpcompile.tuning.search import Search
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


Steps = Generator[Batch, Outcomes, None]
"""Batches, one after another; what was measured of one is sent in before the next is made."""


class Trials:
    """`costs`: tile → time over the default's; inf where it did not build, or did not run to its end; `failures`: the
    reasons. `identity`: what a trial depends on beside its task and tile; `log`: where they are kept."""

    def __init__(self, task: Task, builder: Builder, log: Cache, identity: Mapping[str, str]):
        self.task, self.builder, self.log = task, builder, log
        text = json.dumps([task.text, dict(identity)], sort_keys=True)
        self.identity = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.costs: dict[Tile, float] = {}
        self.failures: dict[Tile, str] = {}
        self.measured: dict[str, float] = {}
        """Code → the cost of whatever tile became it."""
        for row in log:
            if row.get("task") == self.identity:
                self._keep(task.tile_from_json(row["tile"]), row["code"], row["cost"], row["why"])
        self.known = len(self.costs)

    def search(self, search: Search, count: int, first: Iterable[Tile] = ()) -> Steps:
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
        codes = {t: _code(m) for t, m in made.items()}
        if not codes[default]:
            raise made[default]
        classes: dict[str, list[Tile]] = {}
        for tile in tiles:
            classes.setdefault(codes[tile], []).append(tile)
        self._put("", {t: Failed(f"does not build: {one_line(made[t])}") for t in classes.pop("", [])})
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

        yield Batch({t: made[t] for t in fresh}, ROUNDS, told)

    def confirm(self, threads: int) -> Generator[Batch, Outcomes, tuple[Tile, float, float]]:
        """The best few and the default, measured in turn for longer: (the winner, its seconds, the default's).

        The default stays unless one is clearly faster on `threads` threads, and no slower on one.
        """
        default = self.task.default_tile
        best = sorted((t for t, c in self.costs.items() if c < 1 and t != default), key=self.costs.get)[:CONFIRMED]
        made = dict(zip([default, *best], self._build([default, *best])))
        rounds = CONFIRM_ROUNDS if best else ROUNDS
        times = _timings((yield Batch(made, rounds, threads=threads, together=True)))
        base = times[default]
        clear = [
            t
            for t in best
            if t in times and times[t].high < base.low and times[t].seconds < base.seconds * (1 - LEAST_GAIN)
        ]
        if clear and threads > 1:
            alone = _timings((yield Batch({t: made[t] for t in [default, *clear]}, rounds, threads=1, together=True)))
            clear = [t for t in clear if t in alone and alone[t].seconds <= alone[default].seconds * (1 + LEAST_GAIN)]
        won = min(clear, key=lambda t: times[t].seconds, default=default)
        return won, times[won].seconds, base.seconds

    # -- building, and keeping -------------------------------------------------------------------------
    def _build(self, tiles: list[Tile]) -> list[bytes | Exception]:
        return self.builder.build([self.task.lowered(t) for t in tiles])

    def _put(self, code: str, found: Mapping[Tile, Outcome | float]) -> None:
        """To disk, before anything else happens to it."""
        rows = []
        for tile, outcome in found.items():
            timed = outcome if isinstance(outcome, Timed) else None
            cost = timed.cost if timed else outcome if isinstance(outcome, float) else math.inf
            row = {
                "key": f"{self.identity}.{hashlib.sha256(repr(tile).encode()).hexdigest()[:16]}",
                "task": self.identity,
                "title": self.task.title,
                "tile": tile.to_json(),
                "code": code,
                "cost": cost if math.isfinite(cost) else None,
                "why": outcome.why if isinstance(outcome, Failed) else None,
                "seconds": timed.timing.seconds if timed else None,
                "default_seconds": timed.base.seconds if timed else None,
            }
            rows.append(row)
        if rows:
            self.log.put(rows)
        for row, tile in zip(rows, found):
            self._keep(tile, code, row["cost"], row["why"])

    def _keep(self, tile: Tile, code: str, cost: float | None, why: str | None) -> None:
        self.costs[tile] = math.inf if cost is None else cost
        if code:
            self.measured[code] = self.costs[tile]
        if why:
            self.failures[tile] = why


def _code(made: bytes | Exception) -> str:
    """What tells built code apart; "" for what did not build."""
    return hashlib.sha256(made).hexdigest()[:16] if isinstance(made, bytes) else ""


def _timings(found: Outcomes) -> dict[Tile, object]:
    return {tile: outcome.timing for tile, outcome in found.items() if isinstance(outcome, Timed)}
