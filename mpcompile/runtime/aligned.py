"""Memory that begins where TVM's kernels assume. numpy only."""

from __future__ import annotations

import numpy as np

ALIGNMENT = 64
"""Bytes at a multiple of which every block and every view begins."""


def aligned(nbytes: int) -> np.ndarray:
    """uint8 [nbytes] at a multiple of ALIGNMENT bytes; contents undefined. Raises MemoryError."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start:][:nbytes]  # in two steps: where there is none of it, it still begins at `start`
