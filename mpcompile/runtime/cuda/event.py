"""CUDA's events: the clock of the device."""

from __future__ import annotations

import ctypes

from mpcompile.runtime.cuda.memory import CudaMemory


class Event:
    """A moment in a memory's stream: when all that was started before `record` is done."""

    def __init__(self, memory: CudaMemory):
        self._context, self._stream = memory.context, memory.stream
        self._handle = self._context.handle(self, "cuEventCreate", "cuEventDestroy", 0)

    def record(self) -> None:
        self._context.enter().cuEventRecord(self._handle, self._stream)

    def since(self, start: Event) -> float:
        """Seconds, to half a microsecond; it waits until this moment has come. Raises DeviceLost where it does not."""
        found, api = ctypes.c_float(), self._context.enter()
        api.cuEventSynchronize(self._handle)
        api.cuEventElapsedTime(ctypes.byref(found), start._handle, self._handle)
        return found.value * 1e-3
