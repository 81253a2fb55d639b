"""The runtime's record of kind "cuda": kernels in cubins, memory of the device, one graph a plan, time by events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpcompile.latency.waiting import NEVER, WaitClock
from mpcompile.runtime.cuda.architecture import runs_on
from mpcompile.runtime.cuda.context import context
from mpcompile.runtime.cuda.devices import device
from mpcompile.runtime.cuda.event import Event
from mpcompile.runtime.cuda.graph import Graph
from mpcompile.runtime.cuda.memory import CudaMemory
from mpcompile.runtime.cuda.module import Module
from mpcompile.runtime.machine import HERE, Machine, Step, Stopwatch


class CudaDriver:
    """The first CUDA device that the driver lets this process use (CUDA_VISIBLE_DEVICES)."""

    noun = "CUDA device"
    needs_tvm = False

    def here(self) -> Machine:
        found = device()
        return Machine(HERE, "cuda", found.arch, found.name, frozenset())

    def takes(self, arch: str, machine: Machine) -> bool:
        return runs_on(arch, machine.arch)

    def missing(self, features: Sequence[str], machine: Machine) -> list[str]:
        return [f for f in features if f not in machine.features]

    def memory(self) -> CudaMemory:
        return CudaMemory(context())

    def load(self, library: bytes, memory: CudaMemory) -> Callable[[str], Callable]:
        return Module(library, memory).function

    def record(self, steps: Sequence[Step], memory: CudaMemory) -> Sequence[Step]:
        def start() -> None:
            for function, arguments in steps:
                function(*arguments)

        return [(Graph(memory, start).launch, ())]

    def call(self, threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """No kernel uses the host's threads."""
        return function(*arguments)

    def stopwatch(self, memory: CudaMemory) -> Stopwatch:
        ready = [Event(memory), Event(memory)]  # making one takes as long as a small kernel

        def mark() -> Event:
            event = ready.pop() if ready else Event(memory)
            event.record()
            return event

        def between(start: Event, end: Event) -> float:
            seconds = end.since(start)
            ready.extend(Event(memory) for _ in range(2 - len(ready)))
            return seconds

        return Stopwatch(mark, between)

    def wait_clock(self, threads: int) -> WaitClock:
        """Events do not see the host wait."""
        return NEVER

    def cache_stirrer(self, nbytes: int) -> Callable[[], None]:
        memory = self.memory()
        view = memory.view(memory.alloc(nbytes), 0, "uint8", (nbytes,))

        def stir() -> None:
            memory.put(view, 0)
            memory.sync()

        return stir
