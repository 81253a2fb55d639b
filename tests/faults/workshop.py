"""A process in which commands of mpcompile run, and fail where they are told to. It has loaded what they need, and forks
for each: the faults are real, the product has no part in them, and a command costs no start.

    python -m tests.faults.workshop MODULE[:FUNCTION]…

(where a function is named, it is called: it loads what it needs) reads a request a line (JSON; see `Request`) and
answers with a line (`Ended`).
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.patience import PATIENCE

HERE = Path(__file__).parent


@dataclass
class Request:
    """A command line, and its fault. `at`: "module:function" or "module:Class.method"; when it is called for the `nth`
    time (of the calls with an argument that holds the text `given`), just `when` ("before" or "after" it), `what`
    happens: "kill" (SIGKILL), "memory" (from then on no more than `room` bytes of address space beside those that are
    taken) or "clock" (it jumps by `clock` seconds). `limits`: resource limits from the start. `env`: of the command, ""
    for none. `instead`: what stands for something else in it: {"module:function": "module:Class.method"}."""

    arguments: list[str]
    folder: str
    at: str = ""
    nth: int = 1
    given: str = ""
    when: str = "before"
    what: str = "kill"
    room: int = 0
    clock: float = 0.0
    limits: dict[str, int] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    """`code`: of the exit, or minus the signal. `reached`: whether the fault's place was come to."""

    code: int
    out: str
    err: str
    reached: bool

    @property
    def line(self) -> str:
        """What a command that failed says, in its one line."""
        assert self.err.startswith("mpcompile: ") and self.err.count("\n") == 1, self.err
        return self.err.removeprefix("mpcompile: ").rstrip("\n")


class Workshop:
    """The process, from outside. `env`: of it, and of all that runs in it."""

    def __init__(self, *modules: str, env: dict[str, str] | None = None):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.workshop", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
        )

    def run(self, arguments: list, folder: Path, **fault: Any) -> Ended:
        """Runs a command in `folder`, with its temporary files in `folder`/tmp."""
        (folder / "tmp").mkdir(exist_ok=True)
        request = Request(list(map(str, arguments)), str(folder), **fault)
        assert self._process.stdin and self._process.stdout
        print(json.dumps(asdict(request)), file=self._process.stdin, flush=True)
        return Ended(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE)


def serve(modules: list[str]) -> None:
    for module in modules:
        name, _, function = module.partition(":")
        loaded = importlib.import_module(name)
        if function:
            getattr(loaded, function)()
    for line in sys.stdin:
        print(json.dumps(asdict(_run(Request(**json.loads(line))))), flush=True)


def _run(request: Request) -> Ended:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as reached:
        child = os.fork()
        if not child:
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os._exit(_work(request, reached.fileno()))
            finally:
                os._exit(99)
        signal.alarm(PATIENCE)  # a command that hangs ends all: the test then reads an empty line
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        texts = [os.pread(f.fileno(), 1 << 20, 0).decode(errors="replace") for f in (out, err)]
        return Ended(code, *texts, os.fstat(reached.fileno()).st_size > 0)


def _work(request: Request, reached: int) -> int:
    os.chdir(request.folder)
    os.environ.update({"TMPDIR": f"{request.folder}/tmp"} | request.env)
    tempfile.tempdir = None
    for name, most in request.limits.items():
        resource.setrlimit(getattr(resource, name), (most, most))
    for place, other in request.instead.items():
        setattr(*_found(place), getattr(*_found(other)))
    if request.at:
        _set(request, reached)
    from mpcompile.cli import main

    code = main(request.arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _set(request: Request, reached: int) -> None:
    """Puts the fault at its place."""
    owner, last = _found(request.at)
    real, calls = getattr(owner, last), 0

    def faulty(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        counts = not request.given or any(request.given in str(argument) for argument in arguments)
        calls += counts
        due = counts and calls == request.nth
        if due and request.when == "before":
            _happen(request, reached)
        found = real(*arguments, **named)
        if due and request.when == "after":
            _happen(request, reached)
        return found

    setattr(owner, last, faulty)


def _found(place: str) -> tuple[Any, str]:
    """What has it as an attribute, and the attribute's name."""
    module, _, name = place.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = name.split(".")
    for step in outer:
        owner = getattr(owner, step)
    return owner, last


def _happen(request: Request, reached: int) -> None:
    os.write(reached, b"!")
    if request.what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif request.what == "memory":
        most = _taken() + request.room
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    elif request.what == "clock":
        _set_clock(request.clock)
    else:
        raise ValueError(request.what)


def _set_clock(jump: float) -> None:
    """All that tells the date, by so many seconds; what counts from the start of the machine goes on."""
    import time

    now, nanoseconds, utc, here = time.time, time.time_ns, time.gmtime, time.localtime
    time.time = lambda: now() + jump
    time.time_ns = lambda: nanoseconds() + round(1e9 * jump)
    time.gmtime = lambda seconds=None: utc(now() + jump if seconds is None else seconds)
    time.localtime = lambda seconds=None: here(now() + jump if seconds is None else seconds)


def _taken() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    serve(sys.argv[1:])
