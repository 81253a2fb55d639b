"""python -m tests.fuzz: random inputs of every kind, for so long or so many; what is found is shrunk and kept.

    python -m tests.fuzz                          # ten minutes, shared between the kinds
    python -m tests.fuzz --hours 3
    python -m tests.fuzz --full --write           # the counts of docs/explanation/faults.md, into its table
    python -m tests.fuzz --only imports,records --count 1000 --seed 7
    python -m tests.fuzz --only imports --input 7.123 --keep none       # one input of a run, and what is wrong with it

Exits with 1 where something was found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.fuzz.kind import Kind
from tests.fuzz.kinds import ALL
from tests.fuzz.mutate_onnx import FOUND
from tests.fuzz.pool import Outcome, judged, shrunk
from tests.fuzz.totals import Totals, write

SECONDS = 600.0
LARGEST = 110_000
"""Bytes of an input that is kept."""
NONE = "none"


@dataclass
class Run:
    """A kind's share of a run."""

    kind: Kind
    outcomes: Counter = field(default_factory=Counter)
    found: dict[str, list[Outcome]] = field(default_factory=dict)
    """By sort."""
    seconds: float = 0.0

    def take(self, outcome: Outcome) -> bool:
        """Whether it is the first of its sort."""
        self.outcomes[outcome.word] += 1
        if outcome.wrong:
            self.found.setdefault(outcome.sort, []).append(outcome)
        return bool(outcome.wrong) and len(self.found[outcome.sort]) == 1

    def __str__(self) -> str:
        words = ", ".join(f"{n} {word}" for word, n in self.outcomes.most_common())
        return f"{self.kind.name}: {self.outcomes.total()} in {self.seconds:.0f} s: {words or 'none'}"


def kept(kind: Kind, outcome: Outcome, folder: Path) -> Path | None:
    """The file of an input that shows the same, as small as could be made; None where it is too large."""
    content = shrunk(kind, outcome)
    if len(content) > LARGEST:
        return None
    name = hashlib.sha256(outcome.sort.encode()).hexdigest()[:10]
    path = folder / kind.name / f"{name}{kind.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def fuzz(kind: Kind, args: argparse.Namespace, seconds: float, inputs: int) -> Run:
    run, begun = Run(kind), time.monotonic()
    if args.input:
        seed, number = map(int, args.input.split("."))
        jobs = iter([(seed, number)])
    else:
        jobs = ((args.seed, i) for i in (range(inputs) if inputs else count()))
    until = begun + seconds if seconds else float("inf")
    told = begun
    for outcome in judged(kind, jobs, args.jobs, until, quiet=not args.input):
        run.seconds = time.monotonic() - begun
        if run.take(outcome):
            assert isinstance(outcome.job, tuple)
            print(f"  {kind.name} {outcome.job[0]}.{outcome.job[1]}: {outcome.wrong}", flush=True)
        if time.monotonic() - told > 20:
            told = time.monotonic()
            print(f"  {run}", flush=True)
    run.seconds = time.monotonic() - begun
    print(run, flush=True)
    for sort, outcomes in run.found.items():
        path = None if args.keep == NONE else kept(kind, outcomes[0], Path(args.keep))
        print(f"  {len(outcomes)} × {sort}{f': {path}' if path else ''}", flush=True)
    return run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="altogether (default: %(default)g)")
    parser.add_argument("--hours", type=float, help="instead of --seconds")
    parser.add_argument("--full", action="store_true", help="each kind's full count, however long it takes")
    parser.add_argument("--count", type=int, default=0, help="inputs of each kind, however long they take")
    parser.add_argument("--only", default=",".join(ALL), help="kinds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400, help="(default: the day)")
    parser.add_argument("--input", metavar="SEED.NUMBER", help="this input alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--keep", default=str(FOUND), help=f"folder for what is found; {NONE}: not kept")
    parser.add_argument("--write", action="store_true", help="write the totals into the documentation")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # children are ended either way
    if unknown := set(args.only.split(",")) - set(ALL):
        parser.error(f"there is no kind {', '.join(sorted(unknown))}: there are {', '.join(ALL)}")
    kinds = [ALL[name] for name in args.only.split(",")]
    counted = args.full or args.count or args.input
    seconds = args.hours * 3600 if args.hours else args.seconds
    print(f"seed {args.seed}, {args.jobs} processes", flush=True)
    runs = []
    for kind in kinds:
        share = 0.0 if counted else seconds * kind.share / sum(k.share for k in kinds)
        runs.append(fuzz(kind, args, share, kind.count if args.full else args.count))
        if args.write:
            write(
                Totals.of(kind, runs[-1].outcomes, sum(map(len, runs[-1].found.values())), runs[-1].seconds, args.seed)
            )
    total = sum(run.outcomes.total() for run in runs)
    found = sum(len(run.found) for run in runs)
    print(f"{total} inputs, {found} sorts of faults")
    return 1 if found else 0


if __name__ == "__main__":
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ):  # a child that is forked has its parent's memory, not its threads
        os.environ.setdefault(name, "1")
    sys.exit(main())
