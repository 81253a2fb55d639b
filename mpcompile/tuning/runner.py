"""What times built kernels: on this machine, with the project's one measurer. One for a remote device is one more class."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Protocol

from mpcompile import cpu
from mpcompile.compiler.alone import Alone
from mpcompile.kernels.layer import Lowered
from mpcompile.latency.in_place import in_place, stirrer
from mpcompile.latency.measure import Measurement, local, measure
from mpcompile.runtime.single import SingleKernel
from mpcompile.runtime.threads import resolve

MIN_TIME = 0.0003
"""Seconds of one sample."""


class Runner(Protocol):
    """A device. `identity` names what its times depend on beside the kernel: CPU, threads, what lies in its caches."""

    identity: Mapping[str, str]
    threads: int

    def time(self, kernels: Mapping[Hashable, tuple[Lowered, bytes]], rounds: int) -> Measurement:
        """Each kernel's time, in turn with the others and the device's reference, under the same names."""


class LocalRunner:
    """Times in this process with `threads` threads (None: its physical cores).

    As in a network: inputs just written, weights and code out of the second-level cache.
    """

    def __init__(self, threads: int | None = None):
        self.threads = resolve(threads)
        stirred = 1024 * (cpu.cache_kib(2, "Unified") or 1024)
        self._stir: Callable[[], None] = stirrer(stirred)
        self.identity = {"cpu": cpu_name(), "threads": str(self.threads), "stirred": str(stirred)}

    def time(self, kernels: Mapping[Hashable, tuple[Lowered, bytes]], rounds: int) -> Measurement:
        timers = {}
        for name, (lowered, library) in kernels.items():
            kernel = SingleKernel(library, *Alone(lowered, "").plan(), self.threads)
            timers[name] = in_place(kernel.timer(), [local(kernel.prepare)], self._stir)
        return measure(timers, rounds=rounds, min_time=MIN_TIME)


def cpu_name() -> str:
    """This machine's CPU as a record names it: a marketing name alone may be of several generations."""
    vendor, family, model = cpu.vendor()
    return f"{cpu.name()} ({vendor} family {family} model {model})" if vendor else cpu.name()
