"""Integers to binary planes and back, and the bit layout of packed words. numpy only.

A word has 64 bits, or 32 where a tensor has no more channels. The channels are shared out evenly among as few words as
hold them: 96 channels are 2 words of 48, so that a producer, which computes whole words, computes no channel that is not
there.

**The order of channels inside a word is free** as long as weights use the same one, and ours makes packing vertical:
byte l, bit k of a word of 8 bytes holds channel 8k + l; of 4 bytes, 4k + l.

    word w, as 8 bytes in memory (little-endian u64: byte l at bits 8l .. 8l+7)

              bit 0   bit 1   bit 2  …  bit 7
    byte 0    c 0     c 8     c 16      c 56          c = channel − per_word·w
    byte 1    c 1     c 9     c 17      c 57
    …
    byte 7    c 7     c 15    c 23      c 63

A producer that holds channels 8k .. 8k+7 of a pixel in vector k therefore packs a word as Σ_k bit(vector k) << k, eight
lanes at a time, without any step across lanes; the eight resulting bytes are the word. Bits that no channel has are 0.
A consumer may read a word of 64 bits as two of 32.
"""

from __future__ import annotations

import numpy as np

from mpcompile.ir.grid import Grid


def word_bytes(channels: int) -> int:
    """Bytes of each word of so many channels: 4 where all fit one such word, else 8."""
    return 4 if channels <= 32 else 8


def words(channels: int) -> int:
    """Words that `channels` bits take."""
    return -(-channels // (8 * word_bytes(channels)))


def per_word(channels: int) -> int:
    """Channels of a word: an equal share for each, rounded up to 16, which fills vectors."""
    return -(-channels // (16 * words(channels))) * 16


def to_planes(q: np.ndarray, grid: Grid) -> np.ndarray:
    """Values, any shape, to uint8 {0,1} planes [grid.planes, *shape]. Raises ValueError at a value off the grid."""
    pattern = grid.patterns[grid.level(q)]
    shifts = np.arange(grid.planes).reshape(-1, *[1] * np.ndim(q))
    return ((pattern[None] >> shifts) & 1).astype(np.uint8)


def from_planes(bits: np.ndarray, grid: Grid) -> np.ndarray:
    """Planes [grid.planes, *shape] to values int64: Σ c_i·B_i + o."""
    return np.tensordot(np.array(grid.plane_weights, np.int64), bits.astype(np.int64), 1) + grid.offset


def pack_words(bits: np.ndarray) -> np.ndarray:
    """{0,1} along the LAST axis (channels) to words: uint8 [..., W, bytes], in the layout drawn above."""
    *outer, channels = bits.shape
    count, share, lanes = words(channels), per_word(channels), word_bytes(channels)
    full = np.zeros((*outer, count * share), np.uint8)
    full[..., :channels] = bits
    by_byte = full.reshape(*outer, count, share // lanes, lanes).swapaxes(-1, -2)  # [w, k, l] -> [w, l, k]
    return np.packbits(by_byte, axis=-1, bitorder="little")[..., 0]


def unpack_words(packed: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., W, bytes] back to {0,1} uint8 [..., channels]."""
    return all_bits(packed, channels)[..., :channels]


def all_bits(packed: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [..., W, bytes] to {0,1} uint8 of every bit: the channels in order, then the bits that no channel has."""
    *outer, w, lanes = packed.shape
    share = per_word(channels)
    by_byte = np.unpackbits(packed[..., None], axis=-1, bitorder="little")  # [..., w, l, k]
    by_word = by_byte.swapaxes(-1, -2).reshape(*outer, w, 8 * lanes)
    held, rest = (part.reshape(*outer, -1) for part in (by_word[..., :share], by_word[..., share:]))
    return np.concatenate([held, rest], -1)
