"""Real trackers and devices: `mpcompile` as a user starts it, and kernels that misbehave."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from mpcompile.ir.formats import Buffer
from mpcompile.ir.plan import Arg, Call, Placed, Plan
from mpcompile.runtime.device import Kernel
from mpcompile.targets import cpu
from tests.patience import SOON, until

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define KERNEL(name) int __tvm_ffi_##name(void *h, const void *args, int32_t n, void *result)
KERNEL(good) { return 0; }
KERNEL(segfault) { *(volatile int *)0 = 1; return 0; }
KERNEL(leave) { exit(0); }
KERNEL(hang) { for (;;) __asm__ volatile(""); }
KERNEL(grow) { for (;;) { char *p = malloc(1 << 24); if (p) memset(p, 1, 1 << 24); } }
"""


def library(folder: Path) -> bytes:
    """lib.so of SOURCE: what a search might build."""
    (folder / "bad.c").write_text(SOURCE)
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", folder / "bad.so", folder / "bad.c"], check=True)
    return (folder / "bad.so").read_bytes()


def kernel(library: bytes, function: str, features: tuple[str, ...] = ()) -> Kernel:
    """One of its functions as a layer would be."""
    x, y = Arg("workspace", 0, "uint8", (64,)), Arg("workspace", 64, "uint8", (64,))
    placed = (Placed(Buffer("x", "plain", (64,)), x, -1, 0), Placed(Buffer("y", "plain", (64,)), y, 0, 0))
    plan = Plan((), (), (Call(function, "layer", (x, y)),), placed, 128, 128)
    return Kernel(library, plan, np.zeros(64, np.uint8), "cpu", cpu.arch(), features)


class Process:
    """A command that runs until it is ended; `lines` is what it has printed so far."""

    def __init__(self, *arguments: str):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mpcompile", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"TVM_USE_RUNTIME_LIB": "1"},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    def said(self, pattern: str, count: int = 1) -> re.Match:
        """Waits until so many lines match; the last match. Fails where the process ends before."""

        def look():
            found = [m for line in list(self.lines) if (m := re.search(pattern, line))]
            return found[count - 1] if len(found) >= count else None

        return until(look, unless=lambda: (over := self.over()) and f"{pattern!r} is not in what it said: {over}")

    def over(self) -> str:
        """Once the process has ended and everything it said was read: how it ended, and what it said; else ""."""
        if self.process.poll() is None or self._reader.is_alive():
            return ""
        return f"{self.process.args[3:]} ended with {self.process.returncode}: {self.lines}"

    @property
    def address(self) -> str:
        """HOST:PORT where it listens."""
        return self.said(r" on ([\d.]+:\d+)")[1]

    def descendants(self) -> list[int]:
        import psutil

        return [c.pid for c in psutil.Process(self.process.pid).children(recursive=True)]

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit status after this signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(SOON)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise
        self._reader.join(SOON)
        return code


def gone(pids: list[int]) -> bool:
    return not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
