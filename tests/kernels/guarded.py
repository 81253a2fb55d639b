"""Arrays that end right before a page of memory that cannot be read or written: whoever goes past their end is killed."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

ALIGNMENT = 64
NO_ACCESS = 0
"""PROT_NONE."""
_libc = ctypes.CDLL(None, use_errno=True)


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy, up to 63 bytes before such a page: its beginning is aligned. What is around it is not 0."""
    room = -(-max(array.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, room + mmap.PAGESIZE)
    end = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + room
    if _libc.mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, NO_ACCESS):
        raise OSError(ctypes.get_errno(), "mprotect")
    begin = (room - array.nbytes) // ALIGNMENT * ALIGNMENT
    np.frombuffer(memory, np.uint8, room)[:] = 0x5A
    copy = np.frombuffer(memory, array.dtype, array.size, begin).reshape(array.shape)
    copy[...] = array
    return copy
