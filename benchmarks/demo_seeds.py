"""python -m benchmarks.demo_seeds -o DIR: the demo's search again and again, each time of another seed; how often it won.

Each seed is a whole run of examples/demo/search.toml in DIR/seed-N, with everything that `make demo` does: its own float
network, uniform networks, searches, bundles, checks, and one race of them all. Only what a layer takes is measured once
for all seeds, in DIR/cells: it does not depend on the weights. What a run says of itself is what is counted: which
uniform networks are beaten, which searched ones (mpcompile/report/findings.py). Interrupted, it goes on; `--report` reads
what there is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from mpcompile.api.pool_search_device import PoolSearchDevice
from mpcompile.cli import console
from mpcompile.errors import MpError, UsageError
from mpcompile.files import atomic_path
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.progress import Progress
from mpcompile.latency.table import LatencyTable
from mpcompile.remote.pool import DevicePool
from mpcompile.report.page import write_report
from mpcompile.search import config
from mpcompile.search.config import MeasureOptions

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "examples" / "demo" / "search.toml"
RESULTS = ROOT / "benchmarks" / "results"
BEATEN = 3
"""Uniform networks that a run has to beat, and none of its searched ones may be beaten, for its seed to count as won."""


class Raced(NamedTuple):
    """A network as the race at a run's end had it."""

    kind: str
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Seed:
    """What a seed's report says: labels of beaten networks, and label → network."""

    number: int
    uniform_beaten: tuple[str, ...]
    searched_beaten: tuple[str, ...]
    points: Mapping[str, Raced]

    @property
    def won(self) -> bool:
        return len(self.uniform_beaten) >= BEATEN and not self.searched_beaten

    @staticmethod
    def of(number: int, report: dict) -> Seed:
        """Raises UsageError where the run has not come to its race."""
        if report["missing"] or not report["raced"]:
            raise UsageError(f"seed {number} is not finished")
        derived = report["derived"]
        points = {
            derived[p["name"]]["label"]: Raced(p["kind"], p["accuracy"], derived[p["name"]]["seconds"])
            for p in report["points"]
        }
        label = lambda names: tuple(derived[name]["label"] for name in names)
        return Seed(number, label(report["beaten"]["uniform"]), label(report["beaten"]["searched"]), points)


class OneTable(PoolSearchDevice):
    """Keeps what a layer takes in one file, whichever seed's network it is of."""

    def __init__(self, measure: MeasureOptions, pool: DevicePool, cells: Path):
        super().__init__(measure, pool)
        self.cells = cells

    def table(self, model: Path, bits: BitCandidates, cache: Path, progress: Progress) -> LatencyTable:
        return super().table(model, bits, self.cells, progress)


def run(number: int, given: Path, out: Path) -> dict:
    """One seed's whole run, or the rest of it: its report."""
    from mpcompile.search.run import run as search

    file = out / f"seed-{number}.toml"
    text = f"seed = {number}\n{given.read_text(encoding='utf-8')}"
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        file.write_text(text, encoding="utf-8")
    asked = config.read(file)
    device = OneTable(asked.measure, DevicePool.local(), out / "cells")
    with console.steps() as step:
        shown = lambda what, done, total, figures: step(f"seed {number}, {what}: {done} of {total}")
        result = search(file, asked, out / f"seed-{number}", device, shown, console.complain)
    return write_report(result.folder, result.folder / "report.html")


def markdown(seeds: Sequence[Seed]) -> str:
    """How many seeds won, one line for each, and the mean of every network over them."""
    won = sum(s.won for s in seeds)
    lines = [
        f"{won} of {len(seeds)} seed{'s' * (len(seeds) > 1)}: at least {BEATEN} of the "
        f"{sum(p.kind == 'uniform' for p in seeds[0].points.values())} uniform networks beaten by a searched one, "
        "and no searched one beaten by a uniform one.",
        "",
        "| seed | uniform networks beaten | searched networks beaten |",
        "|---|---|---|",
    ]
    for s in seeds:
        lines.append(f"| {s.number} | {_named(s.uniform_beaten)} | {_named(s.searched_beaten)} |")
    lines += ["", "| network | accuracy | an image |", "|---|---|---|"]
    common = [label for label in seeds[0].points if all(label in s.points for s in seeds)]
    for label in sorted(common, key=lambda label: mean(s.points[label].seconds for s in seeds)):
        same = [s.points[label] for s in seeds]
        accuracy, took = _spread([p.accuracy for p in same], 100, 1), _spread([p.seconds for p in same], 1e6, 1)
        lines.append(f"| {label} | {accuracy}% | {took} µs |")
    return "\n".join(lines) + "\n"


def _named(labels: Sequence[str]) -> str:
    return f"{len(labels)}: {', '.join(labels)}" if labels else "0"


def _spread(values: Sequence[float], unit: float, digits: int) -> str:
    """Mean, and the deviation over seeds where there are several."""
    more = f" ± {unit * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{unit * mean(values):.{digits}f}{more}"


def finished(out: Path) -> list[Seed]:
    """Those of the folder that came to their end."""
    files = sorted(out.glob("seed-*/report.json"), key=lambda path: int(path.parent.name.removeprefix("seed-")))
    found = []
    for path in files:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["raced"] and not report["missing"]:
            found.append(Seed.of(int(path.parent.name.removeprefix("seed-")), report))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo_seeds", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="a folder: a run for each seed")
    parser.add_argument("--seeds", type=int, default=10, help="from 0 on (default: %(default)s)")
    parser.add_argument("--config", type=Path, default=CONFIG, help="default: %(default)s")
    parser.add_argument("--report", action="store_true", help="run nothing: count what there is")
    parser.add_argument("--write", action="store_true", help="the tables into benchmarks/results/demo_seeds.md, too")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for number in () if options.report else range(options.seeds):
            found = Seed.of(number, run(number, options.config, options.out))
            console.say(
                f"seed {number}: {len(found.uniform_beaten)} uniform networks beaten, {len(found.searched_beaten)} "
                "searched ones beaten"
            )
        seeds = finished(options.out)
        if not seeds:
            raise UsageError(f"no seed of {options.out} is finished")
        text = markdown(seeds)
        for path in (options.out / "demo_seeds.md", *([RESULTS / "demo_seeds.md"] if options.write else [])):
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
        console.say(text)
    except MpError as error:
        console.complain(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
