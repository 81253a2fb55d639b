"""python -m tests.fuzz.soak: hours of use in minutes, and nothing that grows: threads, mappings, descriptors, memory.

Four Python threads, each on kernels of two threads, over two bundles: they run what is open, open and close others, fork
children that run, and hold sessions of a device. Between rounds all of it rests, and the process is counted; the first
rounds warm up. Exits with 1 where a count at the end is above that after warming up, or memory goes on growing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from mpcompile.runtime import open_bundle
from mpcompile.targets import cpu
from tests.fuzz.child import _waited
from tests.runtime.small_bundle import SHAPE, small_library, small_target, small_variant, write_small

SECONDS = 600.0
THREADS = 4
KERNEL_THREADS = 2
ROUND_SECONDS = 5.0
WARM_UP = 0.25
"""Of the time; at least two rounds."""
SLOPE = 256.0
"""Bytes of memory that an operation may leave behind: an allocator's pages move, and a bundle has thousands."""
SLACK = 24 << 20
"""Bytes of memory that come and go."""
BREATH = 16
"""Mappings that come and go: the C library maps and splits what it allocates from. Files that are mapped do not."""
SETTLE = 30.0
"""Seconds in which what was ended must be gone: the system buries threads and children late."""


@dataclass(frozen=True)
class Sample:
    seconds: float
    operations: int
    threads: int
    files: int
    """Mappings of files: libraries, those that were deleted included."""
    descriptors: int
    children: int
    mappings: int
    """All of them."""
    rss: int

    @property
    def counts(self) -> tuple[int, ...]:
        return self.threads, self.files, self.descriptors, self.children


class Work:
    """What the threads do. `done`: operation → how often; `wrong`: what was not as it must be."""

    def __init__(self, folder: Path, seed: int = 0):
        self.paths = [folder / "first.mpc", folder / "second.mpc"]
        library = small_library(folder)
        for path, name in zip(self.paths, ("x86-64-v2", "other")):
            write_small(path, small_variant(library, target=small_target(name)))
        self.x = np.random.default_rng(seed).normal(0, 1, SHAPE).astype(np.float32)
        self.threads = min(KERNEL_THREADS, len(cpu.allowed()))
        self.opened = [open_bundle(path, self.threads) for path in self.paths]
        self.expected = [bundle.run(self.x) for bundle in self.opened]
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.lock = threading.Lock()

    def check(self, which: int, found: np.ndarray, what: str) -> None:
        if not np.array_equal(found, self.expected[which]):
            self.wrong.append(f"{what} of {self.paths[which].name} differs")

    def run_open(self, which: int) -> None:
        self.check(which, self.opened[which].run(self.x), "a run")

    def run_new(self, which: int) -> None:
        with open_bundle(self.paths[which], self.threads) as bundle:
            self.check(which, bundle.run(self.x), "a run of a new one")
            bundle.run_traced(self.x)

    def fork(self, which: int) -> None:
        pid = os.fork()
        if not pid:
            try:
                with open_bundle(self.paths[which], self.threads) as bundle:
                    same = all(
                        np.array_equal(b.run(self.x), self.expected[which]) for b in (bundle, self.opened[which])
                    )
                os._exit(0 if same else 1)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(2)
        if code := _waited(pid):
            self.wrong.append(f"a forked child ended with {code}")

    def session(self, which: int) -> None:
        from mpcompile.remote.sandbox import SandboxedDevice

        device = SandboxedDevice()
        try:
            found = device.run(self.paths[which], {"x": self.x}, self.threads)
            self.check(which, found["z"], "a session's run")
        finally:
            device.close()

    def batch(self, which: int) -> None:
        """Fifty runs to one of the dear ones."""
        for _ in range(50):
            self.run_open(which)

    def one(self, rng: random.Random) -> None:
        what = rng.choices((self.batch, self.run_new, self.fork, self.session), (40, 20, 4, 1))[0]
        what(rng.randrange(2))
        with self.lock:
            self.done[what.__name__] += 1

    def round(self, seconds: float, seed: int) -> None:
        """All threads at work for so long; new threads each time."""
        end = time.monotonic() + seconds

        def life(number: int) -> None:
            rng = random.Random(f"{seed} {number}")
            try:
                while time.monotonic() < end and not self.wrong:
                    self.one(rng)
            except BaseException as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

        threads = [threading.Thread(target=life, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def each_once(self) -> None:
        """Every operation on both bundles, by all threads at once: what is made on first use is made."""
        for what in (self.session, self.fork, self.run_new, self.batch):
            threads = [threading.Thread(target=what, args=(n % 2,)) for n in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


def sample(work: Work, begun: float) -> Sample:
    gc.collect()
    me = psutil.Process()
    maps = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    return Sample(
        round(time.monotonic() - begun, 1),
        work.done.total(),
        len(os.listdir("/proc/self/task")),
        sum(len(line) > 5 and line[5].startswith("/") for line in maps),
        len(os.listdir("/proc/self/fd")),
        len(me.children(recursive=True)),
        len(maps),
        me.memory_info().rss,
    )


def settled(work: Work, begun: float, most: tuple[int, ...] | None) -> Sample:
    """A sample, taken again for a while where a count is above `most`."""
    end = time.monotonic() + SETTLE
    while True:
        found = sample(work, begun)
        if most is None or all(a <= b for a, b in zip(found.counts, most)) or time.monotonic() > end:
            return found
        time.sleep(0.25)


def complaints(samples: list[Sample]) -> list[str]:
    """What grew from the first to the last of the samples after warming up; none where all is flat."""
    first, last = samples[0], samples[-1]
    names = ("threads", "mapped files", "descriptors", "children")
    found = [f"{n}: {a} → {b}" for n, a, b in zip(names, first.counts, last.counts) if b > a]
    if last.mappings > first.mappings + BREATH:
        found.append(f"mappings: {first.mappings} → {last.mappings}")
    grown, done = last.rss - first.rss, max(1, last.operations - first.operations)
    if grown > SLACK and grown / done > SLOPE:
        found.append(f"memory: {grown / done:.0f} bytes an operation over {done}")
    return found


def soak(seconds: float, folder: Path, round_seconds: float = ROUND_SECONDS, say=print) -> dict:
    """What was done and counted; "wrong" and "grew" are empty where all is well."""
    work, begun = Work(folder), time.monotonic()
    work.each_once()
    rounds, warm = 0, 0.0
    samples: list[Sample] = []
    most: tuple[int, ...] | None = None
    while not work.wrong and (time.monotonic() - begun < seconds or len(samples) < 2):
        work.round(round_seconds, rounds)
        rounds += 1
        warm = time.monotonic() - begun
        if warm < seconds * WARM_UP or rounds < 2:
            continue
        found = settled(work, begun, most)
        most = most or found.counts
        samples.append(found)
        say(
            f"{found.seconds:6.0f} s, {found.operations} operations: {found.threads} threads, {found.mappings} mappings "
            f"({found.files} of files), {found.descriptors} descriptors, {found.children} children, "
            f"{found.rss / (1 << 20):.1f} MiB"
        )
    for bundle in work.opened:
        bundle.close()
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "operations": dict(work.done),
        "samples": [asdict(s) for s in samples],
        "wrong": work.wrong[:10],
        "grew": complaints(samples) if samples else [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.soak", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="(default: %(default)g)")
    parser.add_argument("--json", metavar="FILE", help="write the figures, too")
    parser.add_argument("--write", action="store_true", help="write the figures into the documentation")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        found = soak(args.seconds, Path(folder), say=lambda line: print(line, flush=True))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
    if args.write:
        from tests.fuzz.totals import write_soak

        write_soak(found)
    print(", ".join(f"{n} {what}" for what, n in found["operations"].items()))
    for line in [*found["wrong"], *found["grew"]]:
        print(f"WRONG: {line}")
    return 1 if found["wrong"] or found["grew"] else 0


if __name__ == "__main__":
    sys.exit(main())
