"""One kernel by itself, over memory of its own: what the latency table times."""

from __future__ import annotations

import numpy as np

from mpcompile.ir.plan import Plan
from mpcompile.latency.timer import Timer
from mpcompile.runtime.driver import Driver
from mpcompile.runtime.executor import Executor


class SingleKernel:
    """A plan of one call, ready to be timed. Its inputs hold random bytes: no kernel's time depends on what they
    are, as long as floats are numbers. `weights`: uint8 [bytes]."""

    def __init__(self, driver: Driver, library: bytes, plan: Plan, weights: np.ndarray, threads: int):
        memory = driver.memory()
        block = memory.alloc(weights.size)
        memory.put(memory.view(block, 0, "uint8", weights.shape), weights)
        self._memory = memory
        self._executor = Executor(driver, memory, driver.load(library, memory), plan, block, threads)
        rng = np.random.default_rng(0)
        views = [(self._executor.view(p.arg), p) for p in plan.buffers]
        self._inputs = [(view, _random(rng, p.arg.dtype, p.arg.shape)) for view, p in views if p.written < 0]
        self._outputs = [view for view, p in views if p.written >= 0]
        self._pass = driver.cache_stirrer(plan.workspace_bytes)

    def prepare(self) -> None:
        """What a network does before: the tensors of earlier layers were where the outputs go, then a layer much like
        this one has passed, and has written the inputs."""
        for view in self._outputs:
            self._memory.put(view, 0)
        self._pass()
        for view, data in self._inputs:
            self._memory.put(view, data)
        self._memory.sync()

    def timer(self) -> Timer:
        """Of calling it."""
        return self._executor.timer([0])


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, 100, shape).astype(dtype)
