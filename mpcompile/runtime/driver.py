"""How a process runs what was compiled for one kind of device: what it is, how code is loaded, memory, clocks.

A Driver is the runtime's record of a kind (mpcompile.targets.kind); DRIVERS has them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

from mpcompile.errors import TargetError
from mpcompile.latency.waiting import WaitClock, wait_clock
from mpcompile.runtime import threads as tvm_threads
from mpcompile.runtime.cuda.driver import CudaDriver
from mpcompile.runtime.machine import HERE, Machine, Step, Stopwatch
from mpcompile.runtime.memory import CpuMemory, Memory
from mpcompile.targets import cpu
from mpcompile.targets.registry import Registry


class Needs(Protocol):
    """What code needs of a device: a board, a bundle's variant and a kernel say so."""

    @property
    def kind(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def features(self) -> Sequence[str]: ...


class Driver(Protocol):
    """`noun`: what messages call such a device ("CPU"). `needs_tvm`: whether its code is called by TVM's ABI."""

    @property
    def noun(self) -> str: ...
    @property
    def needs_tvm(self) -> bool: ...

    def here(self) -> Machine:
        """This machine's device of the kind. Raises TargetError, in one line, where it has none."""
        ...

    def takes(self, arch: str, machine: Machine) -> bool:
        """Whether code for that architecture can run on the machine's, features apart."""
        ...

    def missing(self, features: Sequence[str], machine: Machine) -> list[str]:
        """Those that the machine lacks."""
        ...

    def memory(self) -> Memory:
        """Some of the device's, of which `load`, `record` and `stopwatch` make what works on it: what is started on one
        memory is done in order. Raises TargetError where the machine has no such device."""
        ...

    def load(self, library: bytes, memory: Any) -> Callable[[str], Callable]:
        """A lookup name → function, which takes the `argument`s of views of that memory. Raises TargetError where it does
        not load."""
        ...

    def record(self, steps: Sequence[Step], memory: Any) -> Sequence[Step]:
        """Steps that do what those do, in order, and are started at least as fast. What they are called with must live
        as long."""
        ...

    def stopwatch(self, memory: Any) -> Stopwatch:
        """Of what is started on that memory."""
        ...

    def call(self, threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(*arguments)`, where kernels use so many threads of the host."""
        ...

    def wait_clock(self, threads: int) -> WaitClock:
        """Of what runs on so many threads."""
        ...

    def cache_stirrer(self, nbytes: int) -> Callable[[], None]:
        """A callable that does to the device's caches what other layers do between two runs of one: so many bytes are
        read."""
        ...


class CpuDriver:
    """The CPU of this machine, this process's memory, libraries that the system's loader takes."""

    noun = "CPU"
    needs_tvm = True

    def here(self) -> Machine:
        return Machine(HERE, "cpu", cpu.arch(), cpu.name(), cpu.features())

    def takes(self, arch: str, machine: Machine) -> bool:
        return arch == machine.arch

    def missing(self, features: Sequence[str], machine: Machine) -> list[str]:
        return [f for f in features if f not in machine.features]

    def memory(self) -> CpuMemory:
        return CpuMemory()

    def load(self, library: bytes, memory: CpuMemory) -> Callable[[str], Callable]:
        from mpcompile.runtime.library import load_library

        return load_library(library)

    def record(self, steps: Sequence[Step], memory: CpuMemory) -> Sequence[Step]:
        return steps

    def stopwatch(self, memory: CpuMemory) -> Stopwatch:
        return Stopwatch(perf_counter, lambda start, end: end - start)

    call = staticmethod(tvm_threads.call)
    wait_clock = staticmethod(wait_clock)

    def cache_stirrer(self, nbytes: int) -> Callable[[], None]:
        from mpcompile.latency.in_network import cache_stirrer

        return cache_stirrer(nbytes)


DRIVERS: Registry[Driver] = Registry("runtime for devices of kind", {"cpu": CpuDriver(), "cuda": CudaDriver()})


def driver_of(needs: Needs) -> Driver:
    """Raises TargetError, in one line, where this version runs no such kind."""
    return DRIVERS.of(needs.kind)


def lacks(needs: Needs, machines: Mapping[str, Machine] | None = None) -> list[str] | None:
    """Features that a machine lacks to run that code; None where it has no device of that kind and architecture, or where
    this version runs no such kind. `machines`: kind → its device of that kind; None: this one's."""
    if needs.kind not in DRIVERS:
        return None
    driver = driver_of(needs)
    try:
        machine = driver.here() if machines is None else machines.get(needs.kind)
    except TargetError:
        return None
    if machine is None or not driver.takes(needs.arch, machine):
        return None
    return driver.missing(needs.features, machine)


def check_here(name: str, needs: Needs) -> None:
    """Raises TargetError, in one line, where this machine cannot run that code."""
    driver = driver_of(needs)
    machine, missing = driver.here(), lacks(needs)
    if missing is None:
        raise TargetError(f"{name} was built for {needs.arch}, this machine is {machine.arch}")
    if missing:
        raise TargetError(f"{name} needs {', '.join(missing)}, which this {driver.noun} ({machine.model}) lacks")
