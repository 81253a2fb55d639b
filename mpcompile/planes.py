"""Integers to binary planes and back, and the bit layout of packed words. numpy only.

A word is 64 channels. **The order of channels inside a word is free** as long as weights use the same one, and ours
makes packing vertical: byte l, bit k of a word holds channel 8k + l.

    word w, as 8 bytes in memory (little-endian u64: byte l at bits 8l .. 8l+7)

              bit 0   bit 1   bit 2  …  bit 7
    byte 0    c 0     c 8     c 16      c 56          c = channel − 64·w
    byte 1    c 1     c 9     c 17      c 57
    …
    byte 7    c 7     c 15    c 23      c 63

A producer that holds channels 8k .. 8k+7 of a pixel in vector k therefore packs 64 channels as
Σ_k bit(vector k) << k, eight lanes at a time, without any step across lanes; the eight resulting bytes are the word.
Channels past the last are 0 bits.
"""

from __future__ import annotations

import numpy as np

from mpcompile.grid import Grid

WORD = 64


def words(channels: int) -> int:
    """64-bit words that `channels` bits take."""
    return -(-channels // WORD)


def to_planes(q: np.ndarray, grid: Grid) -> np.ndarray:
    """Values, any shape, to uint8 {0,1} planes [grid.planes, *shape]. Raises ValueError at a value off the grid."""
    pattern = grid.patterns[grid.level(q)]
    shifts = np.arange(grid.planes).reshape(-1, *[1] * np.ndim(q))
    return ((pattern[None] >> shifts) & 1).astype(np.uint8)


def from_planes(bits: np.ndarray, grid: Grid) -> np.ndarray:
    """Planes [grid.planes, *shape] to values int64: Σ c_i·B_i + o."""
    return np.tensordot(np.array(grid.plane_weights, np.int64), bits.astype(np.int64), 1) + grid.offset


def pack_words(bits: np.ndarray) -> np.ndarray:
    """{0,1} along the LAST axis (channels) to words: uint8 [..., W, 8], in the layout drawn above."""
    *outer, channels = bits.shape
    full = np.zeros((*outer, words(channels) * WORD), np.uint8)
    full[..., :channels] = bits
    by_byte = full.reshape(*outer, -1, 8, 8).swapaxes(-1, -2)          # [..., w, k, l] -> [..., w, l, k]
    return np.packbits(by_byte, axis=-1, bitorder="little")[..., 0]


def unpack_words(packed: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., W, 8] back to {0,1} uint8 [..., channels]."""
    *outer, w, _ = packed.shape
    by_byte = np.unpackbits(packed[..., None], axis=-1, bitorder="little")   # [..., w, l, k]
    return by_byte.swapaxes(-1, -2).reshape(*outer, w * WORD)[..., :channels]
