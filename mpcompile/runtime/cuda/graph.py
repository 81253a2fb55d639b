"""Many calls as one CUDA graph: the device is told of all its kernels at once, which costs the host one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from mpcompile.runtime.cuda.memory import CudaMemory

RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED: meanwhile other threads may allocate, and the garbage collector may free."""


class Graph:
    """What `record()` starts in the stream of `memory`, ready to be started again. It is not run meanwhile. Whatever its
    kernels read must live as long as this does."""

    def __init__(self, memory: CudaMemory, record: Callable[[], None]):
        self._memory, context = memory, memory.context
        stream, graph = memory.stream, ctypes.c_void_p()
        context.enter().cuStreamBeginCapture(stream, RELAXED)
        try:
            record()
        except BaseException:
            context.api.quietly("cuStreamEndCapture", stream, ctypes.byref(graph))
            if graph:
                context.api.quietly("cuGraphDestroy", graph)
            raise
        context.enter().cuStreamEndCapture(stream, ctypes.byref(graph))
        try:
            self._run = context.handle(self, "cuGraphInstantiate", "cuGraphExecDestroy", graph, None, None, 0)
        finally:
            context.api.quietly("cuGraphDestroy", graph)

    def launch(self) -> None:
        """Starts all of it, behind what was started in the stream before."""
        self._memory.context.enter().cuGraphLaunch(self._run, self._memory.stream)
