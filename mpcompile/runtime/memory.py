"""Memory of a device, as whoever runs a plan sees it: blocks of bytes, and views of them that kernels are called with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mpcompile.runtime.aligned import ALIGNMENT, aligned
from mpcompile.runtime.tvm_runtime import tvm_ffi


class Block(Protocol):
    """Memory that was asked for at once."""

    @property
    def nbytes(self) -> int: ...


class View(Protocol):
    """A part of a block, as an array of some dtype and shape."""

    @property
    def argument(self) -> Any:
        """What a kernel takes for it."""
        ...


class Memory(Protocol):
    """The memory of one device. What the caller has are numpy arrays: they go in by `put` and come out by `get`."""

    def alloc(self, nbytes: int) -> Any:
        """A Block at a multiple of ALIGNMENT bytes; contents undefined. It lives as long as a reference to it, or to a
        view of it. Raises MemoryError."""
        ...

    def take(self, data: np.ndarray) -> Any:
        """A Block of these bytes, uint8, which nobody changes any more: they themselves where the device can read them.
        Raises MemoryError."""
        ...

    def view(self, block: Any, offset: int, dtype: np.dtype | str, shape: tuple[int, ...]) -> Any:
        """A View of the block from byte `offset` on, a multiple of ALIGNMENT. It must lie inside: nobody checks."""
        ...

    def put(self, view: Any, values: np.ndarray | float) -> None:
        """Writes an array of the view's shape, converted to its dtype, or one number everywhere."""
        ...

    def get(self, view: Any, out: np.ndarray | None = None) -> np.ndarray:
        """A copy of what the view holds, in `out` (its shape) or in a fresh array. All that was started before is
        done."""
        ...

    def sync(self) -> None:
        """Returns when all that was started is done."""
        ...


@dataclass(frozen=True, eq=False, slots=True)
class CpuView:
    """`array` and `argument`, a TVM tensor, are the same memory."""

    array: np.ndarray
    argument: Any


class CpuMemory:
    """This process's memory: blocks are uint8 arrays, views TVM tensors over them. Kernels are done when they return."""

    def alloc(self, nbytes: int) -> np.ndarray:
        return aligned(nbytes)

    def take(self, data: np.ndarray) -> np.ndarray:
        if data.flags.writeable and data.ctypes.data % ALIGNMENT == 0:  # DLPack hands over nothing that is read-only
            return data
        block = aligned(data.nbytes)
        np.copyto(block, data)
        return block

    def view(self, block: np.ndarray, offset: int, dtype: np.dtype | str, shape: tuple[int, ...]) -> CpuView:
        dtype = np.dtype(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        array = block[offset : offset + nbytes].view(dtype).reshape(shape)
        return CpuView(array, tvm_ffi().from_dlpack(array, require_alignment=ALIGNMENT, require_contiguous=True))

    def put(self, view: CpuView, values: np.ndarray | float) -> None:
        np.copyto(view.array, values)

    def get(self, view: CpuView, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            return view.array.copy()
        np.copyto(out, view.array)
        return out

    def sync(self) -> None:
        """Nothing is ever under way."""
