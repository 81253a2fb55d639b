"""One kernel by itself, over memory of its own: what the latency table times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpcompile.ir.plan import Plan
from mpcompile.runtime.archive import ALIGNMENT, aligned_empty
from mpcompile.runtime.executor import Executor
from mpcompile.runtime.library import load_library


class SingleKernel:
    """A plan of one call, ready to be timed. Its inputs hold random bytes: no kernel's time depends on what they
    are, as long as floats are numbers."""

    def __init__(self, library: bytes, plan: Plan, weights: np.ndarray, threads: int):
        block = aligned_empty(weights.size)
        block[:] = weights
        self._executor = Executor(load_library(library), plan, block, threads)
        rng = np.random.default_rng(0)
        views = [(self._executor.view(p.arg), p.written < 0) for p in plan.buffers]
        self._inputs = [(view, _random(rng, view)) for view, read in views if read]
        self._outputs = [view for view, read in views if not read]
        self._passed = np.zeros(max(ALIGNMENT, plan.workspace_bytes), np.uint8)[::ALIGNMENT]

    def prepare(self) -> None:
        """What a network does before: the tensors of earlier layers were where the outputs go, then a layer much like
        this one has passed, and has written the inputs."""
        for view in self._outputs:
            view.fill(0)
        self._passed.sum(dtype=np.uint8)
        for view, data in self._inputs:
            np.copyto(view, data)

    def timer(self) -> Callable[[int], float]:
        """n → the seconds of calling it n times."""
        return self._executor.timer([0])


def _random(rng: np.random.Generator, view: np.ndarray) -> np.ndarray:
    if view.dtype.kind == "f":
        return rng.standard_normal(view.shape, np.float32)
    return rng.integers(0, 100, view.shape).astype(view.dtype)
