"""A program on a machine that ssh reaches, and nothing else: it is copied there, run, talked to by lines, and removed
when it ends. One connection, the system's own ssh, so ~/.ssh/config holds here too."""

from __future__ import annotations

import json
import math
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mpcompile.errors import DeviceLost, MissingDependency, MpError, TargetError, UsageError
from mpcompile.latency.timer import Timer
from mpcompile.latency.waiting import NEVER
from mpcompile.runtime.state import State

OPTIONS = ("ConnectTimeout=20", "ServerAliveInterval=10", "ServerAliveCountMax=3")
"""Of ssh, behind the user's, which win."""
START_SECONDS = 900.0
"""For a connection, a password, the copy, and whatever is done for the first time."""
ANSWER_SECONDS, ANSWER_TIMES = 120.0, 100.0
"""A program that answers nothing for so long, or so many times what the same took before, stands still: ssh itself
notices only a dead connection."""
SIGILL = 128 + 4
CANNOT_EXECUTE = 126

_SCRIPT = """set -e
d=$(mktemp -d "${TMPDIR:-/tmp}/mpcompile.XXXXXX")
trap 'rm -rf "$d"' EXIT
trap 'exit 129' HUP INT TERM PIPE
head -c BYTES >"$d/runner"
[ "$(wc -c <"$d/runner")" -eq BYTES ] || exit 1
chmod 700 "$d/runner"
r=0
"$d/runner" WORDS || r=$?
exit $r"""
"""Of the machine's sh. The program ends when its input does, so it does not outlive a broken connection."""


class RemoteProgram:
    """`host` is ssh's [USER@]HOST. `program` is linked for that machine; its first line is JSON: `about`.

    options: of ssh, as its -o takes them. Raises MissingDependency where there is no ssh, TargetError with ssh's or the
    program's own last words, UsageError with those where it ends with EX_USAGE: the words do not fit that machine.
    """

    def __init__(self, host: str, program: Path, words: Sequence[str] = (), options: Sequence[str] = ()):
        ssh = shutil.which("ssh")
        if not ssh:
            raise MissingDependency(
                "reaching a board needs ssh, which is not installed: apt-get install openssh-client"
            )
        if not host or host.startswith("-"):
            raise UsageError(f"--ssh takes [USER@]HOST, not {host!r}")
        self.host, data = host, program.read_bytes()
        script = _SCRIPT.replace("BYTES", str(len(data))).replace("WORDS", shlex.join(words))
        line = "; ".join(script.splitlines())  # csh takes no line ends in quotes
        self._said, self._read = tempfile.TemporaryFile(), b""  # noqa: SIM115
        self._process = subprocess.Popen(
            [ssh, "-T", *(f"-o{o}" for o in (*options, *OPTIONS)), "--", host, f"exec sh -c {shlex.quote(line)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        assert self._process.stdin and self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout
        try:
            self._send(data)
            self.about: dict = self._json(START_SECONDS)
        except BaseException:
            self.close()
            raise

    def timer(self, command: str) -> Timer:
        """Seconds of n times `command`, as the program measured them; a single thread's waiting is taken off there.

        It raises DeviceLost where the program stands still, or the connection broke.
        """
        each: float | None = None

        def run(n: int) -> float:
            nonlocal each
            most = START_SECONDS if each is None else max(ANSWER_SECONDS, ANSWER_TIMES * each * n)
            self._send(f"{command} {n}\n".encode())
            answer = self._line(most)
            try:
                seconds = float(answer)
            except ValueError:
                raise TargetError(f"{self.host} answered {answer!r} to {command!r}") from None
            each = seconds / n
            return seconds

        return Timer(run, NEVER)

    def state(self) -> State:
        """Governor, clock and the like, as the machine's files have them."""
        self._send(b"state\n")
        told = self._json(ANSWER_SECONDS)
        return State(told["governor"], told["clock"], told["temperature"] or None, told["throttled"], 0)

    def close(self) -> None:
        """Ends the program; what was copied is removed by the machine itself."""
        if not self._input.closed:
            try:
                self._input.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()
        self._said.close()

    def __enter__(self) -> RemoteProgram:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _send(self, data: bytes) -> None:
        try:
            self._input.write(data)
            self._input.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _line(self, most: float) -> str:
        """The next line, awaited for at most so many seconds."""
        end, pipe = time.monotonic() + most, self._output
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        while b"\n" not in self._read:
            if not poller.poll(max(0, math.ceil(1000 * (end - time.monotonic())))):
                self._process.kill()
                raise DeviceLost(f"{self.host}: the program there has answered nothing for {most:.0f} s")
            piece = os.read(pipe.fileno(), 1 << 16)
            if not piece:
                raise self._ended()
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _json(self, most: float) -> dict:
        """The next line that is JSON, each awaited for at most `most` seconds: a login shell may greet first."""
        while not (line := self._line(most)).startswith("{"):
            pass
        try:
            return json.loads(line)
        except ValueError as error:
            raise TargetError(f"{self.host} answered {line!r}, which is no JSON") from error

    def _ended(self) -> MpError:
        """Why the program, or the connection, is no longer there."""
        code = self._process.wait()
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        last = lines[-1] if lines else "no message"
        if code == 255:
            return DeviceLost(f"ssh to {self.host}: {last}")
        if code == os.EX_USAGE:
            return UsageError(f"{self.host}: {last}")
        if code == SIGILL:
            return TargetError(f"{self.host}: its CPU has not even the base instructions of this architecture")
        if code == CANNOT_EXECUTE or "format error" in last.lower():
            return TargetError(f"{self.host} cannot run the program: {last}")
        return TargetError(f"{self.host}: {last}" if lines else f"{self.host}: the program ended with {code}")
