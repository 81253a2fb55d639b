"""Winograd's F(2×2, 3×3) in integers, as `dot` uses it where a CPU multiplies 16 bits: the weights. numpy only.

    Y = Aᵀ·((G·w·Gᵀ) ∘ (Bᵀ·l·B))·A        2×2 outputs of 4×4 levels l by 16 products for each channel, not 36

2·G has whole entries, so the transformed weights are taken 4 times; every output is then a multiple of 4, and is exact:
it is shifted by 2. Weights of 8 bits become numbers up to 9·128, levels up to 4·255: 16 bits hold them.
(A. Lavin, S. Gray: Fast Algorithms for Convolutional Neural Networks, 2016.)
"""

from __future__ import annotations

import numpy as np

from mpcompile.kernels.accumulators import INT32
from mpcompile.kernels.families.winograd_scheme import scheme

INT16 = (1 << 15) - 1
TILE = 2
"""Outputs a side of a tile; it reads 4 × 4 levels."""
PRODUCTS = 16
WORK = 0.5
"""Of a direct product's time, transforming included: 16/36 of its products."""

G2 = np.array(scheme(TILE, 3, (0, 1, -1), 3).weights, np.int64)
"""2·G."""

LEAST_CHANNELS, LEAST_SIZE = 16, 4
"""With fewer channels, or smaller maps, transforming costs more than it saves."""


def has_form(shape: tuple[int, ...], output: tuple[int, int], strides, dilations, groups: int) -> bool:
    """Whether a contraction with weights of shape [O, C, KH, KW] and so many output lines and columns is of the kind
    that pays."""
    return (
        tuple(shape[2:]) == (3, 3)
        and tuple(strides) == tuple(dilations) == (1, 1)
        and groups == 1
        and min(shape[:2]) >= LEAST_CHANNELS
        and min(output) >= LEAST_SIZE
    )


def fits(w8: np.ndarray, max_level: int) -> bool:
    """Whether int32 holds every partial sum on the way, over all levels 0..max_level, and int16 the operands."""
    largest = max_level * np.array([2, 2, 2, 2, 2, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2])  # |Bᵀ·l·B|
    transformed = np.abs(transform(w8)[:, :, 0])
    return bool(
        (transformed.sum(1) * largest).sum(1).max() <= INT32 and transformed.max() <= INT16 and largest.max() <= INT16
    )


def tiles(size: int) -> int:
    """Tiles that cover so many outputs of a row or a column."""
    return -(-size // TILE)


def transform(w8: np.ndarray) -> np.ndarray:
    """[O, C, 3, 3] to int64 [O, C, 1, 16]: 4·G·w·Gᵀ, row by row."""
    return np.einsum("ia,jb,ocab->ocij", G2, G2, w8.astype(np.int64)).reshape(*w8.shape[:2], 1, PRODUCTS)
