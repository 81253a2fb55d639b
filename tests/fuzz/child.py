"""A verb of the command line in a forked child, under limits of time and memory: forked, so that nothing is imported anew
for each of thousands."""

from __future__ import annotations

import os
import resource
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.kind import Wrong

CPU_SECONDS = 30
WALL_SECONDS = 240.0
EXITS = (0, 2, 3, 4, 5)
"""What a verb may end with, of bad input: cli/command_line.py."""


@dataclass(frozen=True)
class Done:
    code: int
    """As a shell has it; negative: the signal that ended it."""
    stdout: str
    stderr: str


def warm_up() -> None:
    """Loads what every verb needs, so that children have it. No kernel runs here: a child must start its own threads."""
    import tvm  # noqa: F401

    import mpcompile.cli.verbs.compile
    import mpcompile.cli.verbs.verify
    import mpcompile.compiler.pipeline
    import mpcompile.runtime  # noqa: F401


def verb(folder: Path, *words: str, cpu_seconds: int = CPU_SECONDS) -> Done:
    """`mpcompile WORDS…` in a child."""
    from mpcompile.cli import main

    out, err = folder / "stdout", folder / "stderr"
    pid = os.fork()
    if not pid:
        code = 99
        try:
            for path, stream in ((out, 1), (err, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            soft = int(time.process_time()) + cpu_seconds
            resource.setrlimit(resource.RLIMIT_CPU, (soft, soft + 5))
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
            code = main(list(words))
        finally:
            os._exit(code)
    code = _waited(pid)
    return Done(code, out.read_text(errors="replace"), err.read_text(errors="replace"))


def _waited(pid: int) -> int:
    end = time.monotonic() + WALL_SECONDS
    pause = 0.005
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(pause * 1.2, 0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise Wrong(f"hang: a verb takes over {WALL_SECONDS:g} s")


def checked(done: Done, words: str, codes=EXITS) -> int:
    """Its exit code. Raises Wrong where it is none of these, or what was said is not one line."""
    last = " ".join(done.stderr.strip().splitlines()[-1:])
    if done.code == -signal.SIGXCPU:
        raise Wrong(f"hang: {words} takes over {CPU_SECONDS} s of the processor")
    if done.code < 0:
        raise Wrong(f"crash: {words} was ended by {signal.Signals(-done.code).name} | {last}")
    if done.code not in codes:
        sort = last.split("mpcompile itself: ")[-1].split(":")[0] if done.code == 70 else last[:60]
        raise Wrong(f"exit {done.code}: {words}: {sort} | {last} {done.stdout[-300:]}")
    if "Traceback" in done.stderr:
        raise Wrong(f"traceback: {words} | {last}")
    if done.code and len([line for line in done.stderr.splitlines() if line.startswith("mpcompile: ")]) != 1:
        raise Wrong(f"lines: {words} says not one line | {done.stderr[:300]!r}")
    return done.code
