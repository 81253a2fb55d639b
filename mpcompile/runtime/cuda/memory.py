"""A CUDA device's memory, and the stream in which whatever is done with it follows one upon the other."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from mpcompile.runtime.cuda.context import NON_BLOCKING, Context


@dataclass(frozen=True, eq=False)
class CudaBlock:
    """Memory of the device from `address` on."""

    address: int
    nbytes: int


@dataclass(frozen=True, eq=False, slots=True)
class CudaView:
    """`argument`, the address of its first element, is what kernels take."""

    block: CudaBlock
    argument: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class CudaMemory:
    """Blocks by cuMemAlloc, each at a multiple of 256 bytes. `stream`: copies, kernels and graphs of this memory."""

    def __init__(self, context: Context):
        self.context = context
        self.stream = context.handle(self, "cuStreamCreate", "cuStreamDestroy", NON_BLOCKING)
        self._leaving: list[np.ndarray] = []
        """Arrays that may not have been read yet: where a device reads the host's pages itself, a copy does not wait."""

    def alloc(self, nbytes: int) -> CudaBlock:
        address, api = ctypes.c_uint64(), self.context.enter()
        api.cuMemAlloc(ctypes.byref(address), max(1, nbytes))
        block = CudaBlock(address.value, nbytes)
        self.context.give_back(block, "cuMemFree", address.value)
        return block

    def take(self, data: np.ndarray) -> CudaBlock:
        block = self.alloc(data.nbytes)
        self.put(self.view(block, 0, "uint8", data.shape), data)
        return block

    def view(self, block: CudaBlock, offset: int, dtype: np.dtype | str, shape: tuple[int, ...]) -> CudaView:
        return CudaView(block, block.address + offset, np.dtype(dtype), shape)

    def put(self, view: CudaView, values: np.ndarray | float) -> None:
        api = self.context.enter()
        if np.ndim(values) == 0 and not np.any(values):
            api.cuMemsetD8Async(view.argument, 0, view.nbytes, self.stream)
            return
        if isinstance(values, np.ndarray) and values.shape == view.shape and values.dtype == view.dtype:
            data = np.ascontiguousarray(values)
        else:
            data = np.empty(view.shape, view.dtype)
            np.copyto(data, values)
        self._leaving.append(data)
        api.cuMemcpyHtoDAsync(view.argument, data.ctypes.data, data.nbytes, self.stream)

    def get(self, view: CudaView, out: np.ndarray | None = None) -> np.ndarray:
        fits = out is not None and out.dtype == view.dtype and out.shape == view.shape and out.flags.c_contiguous
        found = out if out is not None and fits else np.empty(view.shape, view.dtype)
        api = self.context.enter()
        api.cuMemcpyDtoHAsync(found.ctypes.data, view.argument, found.nbytes, self.stream)
        self.sync()
        if out is None or found is out:
            return found
        np.copyto(out, found)
        return out

    def sync(self) -> None:
        """Raises DeviceLost where what was started before failed."""
        self.context.enter().cuStreamSynchronize(self.stream)
        self._leaving.clear()
