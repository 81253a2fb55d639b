"""On a process's PYTHONPATH, it makes a slow device of it, while the file $SLOW_DEVICE exists: one run of a kernel, of a
network or of the reference kernel really is ten, and is timed as it comes."""

import hashlib
import os
from dataclasses import replace

FILE = os.environ["SLOW_DEVICE"]
quick_blake2b = hashlib.blake2b


def times() -> int:
    return 10 if os.path.exists(FILE) else 1


def blake2b(block: bytes):
    for _ in range(times() - 1):
        quick_blake2b(block).digest()
    return quick_blake2b(block)


hashlib.blake2b = blake2b

from mpcompile.runtime.executor import Executor  # noqa: E402

quick_timer = Executor.timer


def timer(self, calls):
    quick = quick_timer(self, calls)

    def seconds(n: int) -> float:
        return quick.seconds(times() * n)

    return replace(quick, seconds=seconds)


Executor.timer = timer
