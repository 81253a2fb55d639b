"""The project's one measurer: several subjects in turn, medians, and two signs that the machine was disturbed.

What is measured is a `Timer` (timer.py): it runs its subject n times and gives the seconds that took, as the device
itself measured them, and tells how much of them was waiting for a core.

    for each round:   reference, A, reference, B, reference, C, …, reference

Samples are short, so that most fit between two turns of other processes, and short subjects run once untimed before
each sample, so that none pays for the caches that the one before it filled.

A sample counts when, within `slack`, the reference kernel ran as fast just before and just after it as it ever did in
this measurement (a lower clock, a busy sibling thread), and the sample did not have to wait for a core that another
process held. Other samples are taken again, in further rounds, as far as `max_rounds` allows. A subject that still has
fewer than `rounds` good samples then also uses its least disturbed others, less the wait and divided by the reference's
slowdown around them, but none that was disturbed by more than a factor of MOST unless there is no other. A report says
how many samples were repeated and how many corrected.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from statistics import median

import numpy as np

from mpcompile.latency.progress import Progress
from mpcompile.latency.timer import Timer, local

MOST = 3.0
TRIES = 8
REFERENCE_TIME = 0.0003
"""Seconds of one sample of the reference."""


def local_reference() -> Timer:
    """BLAKE2b over 16 KiB: constant work in one core's registers and L1, in C, without numpy or a compiler.

    Scalar code with about three instructions a cycle: a lower clock, a busy sibling thread and a preemption all show.
    """
    block = bytes(range(256)) * 64
    return local(lambda: hashlib.blake2b(block).digest())


@dataclass(frozen=True)
class Timing:
    """Seconds of one run of a subject. `low` and `high` are the quartiles of the samples that counted."""

    name: str
    seconds: float
    low: float
    high: float
    samples: int
    repeated: int = 0
    corrected: int = 0

    @property
    def spread(self) -> float:
        """Interquartile range over the median."""
        return (self.high - self.low) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict:
        return {
            "name": self.name,
            "seconds": self.seconds,
            "low": self.low,
            "high": self.high,
            "spread": self.spread,
            "samples": self.samples,
            "repeated": self.repeated,
            "corrected": self.corrected,
        }

    @staticmethod
    def from_json(d: Mapping) -> Timing:
        return Timing(**{f.name: d[f.name] for f in fields(Timing)})


@dataclass(frozen=True)
class Measurement:
    """Timings by name. `reference_best` and `reference_median` are seconds of one run of the reference. `warnings`: what
    the device says of itself that makes them doubtful."""

    timings: dict[str, Timing]
    reference_best: float
    reference_median: float
    rounds: int
    slack: float
    warnings: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Timing:
        return self.timings[name]

    def ratio(self, slow: str, fast: str) -> float:
        """How many times faster `fast` ran than `slow`."""
        return self[slow].seconds / self[fast].seconds

    @property
    def repeated(self) -> int:
        return sum(t.repeated for t in self.timings.values())

    @property
    def corrected(self) -> int:
        return sum(t.corrected for t in self.timings.values())

    def note(self) -> str:
        """One line on how quiet the machine was."""
        drift = self.reference_median / self.reference_best - 1
        return (
            f"{self.rounds} rounds; {self.repeated} samples repeated and {self.corrected} corrected, disturbed by more "
            f"than {self.slack:.0%} (reference kernel's median over its best: +{drift:.1%})"
            + "".join(f"; {warning}" for warning in self.warnings)
        )

    def to_json(self) -> dict:
        return {
            "timings": {n: t.to_json() for n, t in self.timings.items()},
            "rounds": self.rounds,
            "slack": self.slack,
            "reference_best": self.reference_best,
            "reference_median": self.reference_median,
            "warnings": list(self.warnings),
        }

    @staticmethod
    def from_json(d: Mapping) -> Measurement:
        timings = {name: Timing.from_json(t) for name, t in d["timings"].items()}
        return Measurement(
            timings, d["reference_best"], d["reference_median"], d["rounds"], d["slack"], tuple(d["warnings"])
        )


@dataclass(frozen=True)
class _Sample:
    """Seconds of one run, of its share of waiting, and of the slower reference beside it. `exact`: the wait is what it
    is longer by; several threads wait together, or for each other, so theirs only tells that something was wrong."""

    seconds: float
    wait: float
    reference: float
    exact: bool

    def disturbance(self, best: float) -> float:
        """By what factor it is too long, as far as the two signs tell."""
        return self.reference / best * self.seconds / max(self.seconds - self.wait, 1e-12)

    def undisturbed(self, best: float) -> float:
        return (self.seconds - self.wait * self.exact) * best / self.reference


def best_reference(seconds: float = 0.1, sample: float = REFERENCE_TIME) -> float:
    """Seconds of one run of the reference kernel here, as a measurement that lasted so long would give its best."""
    reference = local_reference()
    count = calibrate(reference, sample)
    seen: list[float] = []
    end = time.perf_counter() + seconds
    while not seen or time.perf_counter() < end:
        taken, wait = _run(reference, count)
        seen.append(max(taken - wait, taken / 100) / count)
    return _best(seen)


def _run(timer: Timer, n: int) -> tuple[float, float]:
    """Seconds of n runs, and how many of them were waiting: not what passed outside, between the clocks."""
    before, start = time.perf_counter(), timer.waited()
    seconds = timer.seconds(n)
    wait = timer.waited() - start
    outside = max(0.0, time.perf_counter() - before - seconds)
    return seconds, min(max(0.0, wait - outside), seconds)


def calibrate(timer: Timer, min_time: float, most: int = 1 << 24) -> int:
    """How many runs take at least `min_time` seconds together. Also warms the subject up."""
    timer.seconds(1)
    n = 1
    while True:
        seconds = timer.seconds(n)
        if seconds >= min_time:
            seconds = min(seconds, timer.seconds(n))  # the first may have waited for a core
        if seconds >= min_time or n >= most:
            return n
        n = min(most, max(n + 1, int(n * min(10.0, 1.2 * min_time / max(seconds, 1e-9)))))


def measure(
    subjects: Mapping[str, Timer],
    *,
    rounds: int = 21,
    min_time: float = 0.001,
    slack: float = 0.05,
    max_rounds: int | None = None,
    reference: Timer | None = None,
    reference_time: float = REFERENCE_TIME,
    progress: Progress | None = None,
) -> Measurement:
    """Times `subjects` in turn, each sample at least `min_time` seconds long, until each has `rounds` good samples.

    At most `max_rounds` (default 8·rounds) rounds. `reference` runs about `reference_time` seconds between any two
    samples; where the subjects run on another device, so must it. `progress(done, rounds)` is called after each round.
    Raises ValueError where there is nothing to measure.
    """
    if not subjects or rounds < 1:
        raise ValueError("nothing to measure: name at least one subject and one round")
    reference = reference or local_reference()
    max_rounds = max(rounds, 8 * rounds if max_rounds is None else max_rounds)
    counts = {name: calibrate(timer, min_time) for name, timer in subjects.items()}
    reference_count = calibrate(reference, reference_time)

    def check() -> float:
        """Seconds of one run of the reference; a run that had to wait is another process's doing, and is done again."""
        seconds, wait = _run(reference, reference_count)
        for _ in range(TRIES - 1):
            if wait <= slack * seconds:
                break
            seconds, wait = _run(reference, reference_count)
        return max(seconds - wait, seconds / 100) / reference_count

    samples: dict[str, list[_Sample]] = {name: [] for name in subjects}
    seen = [check() for _ in range(5)]
    done = 0
    while done < max_rounds:
        good = {name: sum(s.disturbance(_best(seen)) <= 1 + slack for s in taken) for name, taken in samples.items()}
        missing = [name for name in subjects if good[name] < rounds]
        if progress:
            progress(min(good.values()), rounds)
        if not missing:
            break
        before = check()
        for name in missing:
            if counts[name] > 1:
                subjects[name].seconds(1)
            seconds, wait = _run(subjects[name], counts[name])
            after = check()
            exact = subjects[name].waits.exact
            samples[name].append(_Sample(seconds / counts[name], wait / counts[name], max(before, after), exact))
            seen += [before, after]
            before = after
        done += 1
    best = _best(seen)
    timings = {name: _summary(name, taken, rounds, best, slack) for name, taken in samples.items()}
    return Measurement(timings, best, median(seen), done, slack)


def _best(seen: list[float]) -> float:
    """The reference's best time, but for the fastest twentieth: a clock that was read in a bad moment must not
    decide."""
    return sorted(seen)[len(seen) // 20]


def _summary(name: str, taken: list[_Sample], rounds: int, best: float, slack: float) -> Timing:
    """The good samples' median; where they are too few, the least disturbed others too, corrected."""
    ordered = sorted(taken, key=lambda s: s.disturbance(best))
    good = [s.seconds for s in ordered if s.disturbance(best) <= 1 + slack]
    usable = [s for s in ordered if s.disturbance(best) <= MOST] or ordered[:1]
    disturbed = usable[len(good) :][: max(0, rounds - len(good))]
    kept = good + [s.undisturbed(best) for s in disturbed]
    low, mid, high = np.percentile(kept, (25, 50, 75))
    repeated = len(taken) - len(good) - len(disturbed)
    return Timing(name, float(mid), float(low), float(high), len(kept), repeated, len(disturbed))
