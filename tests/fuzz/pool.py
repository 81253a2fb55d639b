"""Inputs judged in child processes, which are replaced when they end or hang, so that a crash is its input's. Shrinks what
was found."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from tests.fuzz.kind import Kind, Number, Wrong

CPU_SECONDS = 30.0
"""An input that takes more of the processor hangs."""
WALL_SECONDS = 240.0
"""One that takes more altogether does, too: a lock is waited for. Longer, since the machine may be busy."""
MEMORY = 6 << 30
"""Bytes of addresses of a child."""
RECYCLED = 1500
"""Inputs after which a child is replaced: what a witness leaks must not be taken for ours."""
SHRINKS = 60
"""Attempts to make a finding smaller."""


@dataclass(frozen=True)
class Outcome:
    """Of one input: `word`, what became of it; `wrong`, "" or what is."""

    job: Number | bytes
    word: str
    wrong: str
    seconds: float

    @property
    def sort(self) -> str:
        """What is the same of findings of one cause: all but names and numbers."""
        return self.wrong.split(" | ")[0]


def _where(error: BaseException) -> str:
    """The exception, and the last frames of ours and of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "mpcompile" in f.filename and "site-packages" not in f.filename]
    seen = dict.fromkeys(f"{Path(f.filename).name}:{f.name}" for f in [*ours[-2:], *frames[-1:]])
    said = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {' < '.join(reversed(seen))} | {said}"


def _jobs(pipe: Connection) -> Iterator[Number | bytes]:
    """Until nobody is at the other end."""
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        yield job


def _work(pipe: Connection, kind: Kind, quiet: bool) -> None:
    """A child's life."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if quiet:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    pipe.send(("ready", ""))
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        for turn, job in enumerate(_jobs(pipe)):
            folder = Path(top) / str(turn)
            folder.mkdir()
            begun, wrong, word = time.monotonic(), "", "wrong"
            try:
                content = job if isinstance(job, bytes) else kind.make(job)
                word = kind.judge(content, folder, lambda whose: pipe.send(("aside", whose)))
            except Wrong as found:
                wrong = " ".join(str(found).split())
            except BaseException as error:
                wrong = _where(error)
            pipe.send(("done", Outcome(job, word, wrong, time.monotonic() - begun)))
            for path in folder.iterdir():
                path.unlink()


class _Child:
    def __init__(self, kind: Kind, quiet: bool):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: Any = context.Process(target=_work, args=(theirs, kind, quiet), daemon=False)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # it has imported what it needs, which is not its first input's time; EOFError where it cannot
        self.done, self.job, self.aside = 0, None, ""

    def give(self, job: Number | bytes) -> None:
        self.job, self.aside = job, ""
        self.begun, self.cpu = time.monotonic(), self._cpu()
        self.pipe.send(job)

    def _cpu(self) -> float:
        """Seconds of the processor, of the child and its children."""
        try:
            t = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return t.user + t.system + t.children_user + t.children_system

    def hangs(self, kind: Kind) -> str:
        limit = getattr(kind, "cpu_seconds", CPU_SECONDS)
        if (taken := self._cpu() - self.cpu) > limit:
            return f"hang: over {limit:g} s of the processor | {taken:.0f} s"
        return f"hang: over {WALL_SECONDS:g} s" if time.monotonic() - self.begun > max(WALL_SECONDS, limit * 4) else ""

    def outcome(self, word: str, wrong: str) -> Outcome:
        assert self.job is not None
        if self.aside and wrong:  # not ours
            word, wrong = f"{self.aside} failed", ""
        return Outcome(self.job, word, wrong, time.monotonic() - self.begun)

    def end(self) -> None:
        for process in _family(self.process.pid):
            try:
                process.kill()
            except psutil.Error:
                pass
        self.process.join()
        self.pipe.close()


def _family(pid: int) -> list[psutil.Process]:
    try:
        top = psutil.Process(pid)
        return [*top.children(recursive=True), top]
    except psutil.Error:
        return []


def judged(
    kind: Kind,
    jobs: Iterable[Number | bytes],
    processes: int = 1,
    until: float = float("inf"),
    quiet: bool = True,
) -> Iterator[Outcome]:
    """The outcome of each input, in the order in which they end; those that are not begun at `until` (time.monotonic's)
    are not judged."""
    left, children = iter(jobs), [_Child(kind, quiet) for _ in range(processes)]

    def next_job(child: _Child) -> None:
        child.job = None
        if time.monotonic() < until and (job := next(left, None)) is not None:
            child.give(job)

    try:
        for child in children:
            next_job(child)
        while busy := [c for c in children if c.job is not None]:
            wait([c.pipe for c in busy], timeout=1.0)
            for child in busy:
                outcome = _heard(child, kind)
                if outcome is None:
                    continue
                yield outcome
                if not child.process.is_alive() or child.done >= RECYCLED:
                    child.end()
                    children.remove(child)
                    child = _Child(kind, quiet)
                    children.append(child)
                next_job(child)
    finally:
        for child in children:
            child.end()


def _heard(child: _Child, kind: Kind) -> Outcome | None:
    """What a child says of its input, or its end does; None where it is still at work."""
    try:
        while child.pipe.poll():
            what, said = child.pipe.recv()
            if what == "done":
                child.done += 1
                return said
            child.aside = said
    except (EOFError, OSError):
        child.process.join()
        return child.outcome("died", f"died: exit {child.process.exitcode}")
    if wrong := child.hangs(kind):
        outcome = child.outcome("hung", wrong)
        for process in _family(child.process.pid):
            process.kill()
        child.process.join()
        return outcome
    return None


class Judge:
    """Judges one input after another, in a child that is replaced when it ends or hangs. For a `with`."""

    def __init__(self, kind: Kind, quiet: bool = True):
        self.kind, self.quiet = kind, quiet
        self.child = _Child(kind, quiet)

    def __call__(self, job: Number | bytes) -> Outcome:
        if not self.child.process.is_alive():
            self.child.end()
            self.child = _Child(self.kind, self.quiet)
        self.child.give(job)
        while True:
            wait([self.child.pipe], timeout=1.0)
            if outcome := _heard(self.child, self.kind):
                return outcome

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_) -> None:
        self.child.end()


def shrunk(kind: Kind, found: Outcome) -> bytes:
    """The least input that shows the same: with fewer edits, then with less in it."""
    content = found.job if isinstance(found.job, bytes) else kind.make(found.job)
    left = SHRINKS
    with Judge(kind) as judge:

        def same(other: bytes) -> bool:
            nonlocal left
            left -= 1
            return judge(other).sort == found.sort

        if not isinstance(found.job, bytes):
            without: frozenset[int] = frozenset()
            for edit in range(kind.edits(found.job)):
                less = without | {edit}
                if left > 0 and same(other := kind.make(found.job, less)):
                    without, content = less, other
        going = True
        while going and left > 0:
            going = False
            for other in kind.smaller(content):
                if left <= 0:
                    break
                if len(other) < len(content) and same(other):
                    content, going = other, True
                    break
    return content
