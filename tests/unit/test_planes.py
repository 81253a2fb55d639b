"""The layout of packed words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcompile.ir.planes import all_bits, pack_words, per_word, unpack_words, word_bytes, words


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_byte_l_bit_k_is_channel_bytes_times_k_plus_l(channels, seed):
    bits = np.random.default_rng(seed).integers(0, 2, (2, 3, channels), dtype=np.uint8)
    packed = pack_words(bits)
    size = word_bytes(channels)
    assert packed.shape == (2, 3, words(channels), size) and packed.dtype == np.uint8
    for c in range(channels):
        w, inside = divmod(c, per_word(channels))
        k, byte = divmod(inside, size)
        np.testing.assert_array_equal((packed[..., w, byte] >> k) & 1, bits[..., c])
    np.testing.assert_array_equal(unpack_words(packed, channels), bits)
    everything = all_bits(packed, channels)
    assert everything.shape[-1] == 8 * size * words(channels) and not everything[..., channels:].any()
    np.testing.assert_array_equal(everything[..., :channels], bits)
    assert sum(bin(b).count("1") for b in packed.ravel()) == bits.sum(), "channels past the last must be 0 bits"


def test_a_word_is_a_little_endian_u64():
    bits = np.zeros(64, np.uint8)
    bits[8 * 3 + 5] = 1  # byte 5, bit 3
    assert pack_words(bits).view("<u8").item() == 1 << (8 * 5 + 3)


def test_vertical_packing():
    """A producer with channels 8k..8k+7 in vector k packs with shifts and ORs between vectors alone."""
    bits = np.random.default_rng(0).integers(0, 2, 64, dtype=np.uint8)
    vectors = bits.reshape(8, 8)
    np.testing.assert_array_equal(pack_words(bits)[0], np.bitwise_or.reduce([v << k for k, v in enumerate(vectors)]))


@pytest.mark.parametrize("channels, want", [(1, 1), (32, 1), (63, 1), (64, 1), (65, 2), (512, 8)])
def test_words(channels, want):
    assert words(channels) == want
    assert word_bytes(channels) == (4 if channels <= 32 else 8)


@pytest.mark.parametrize(
    "channels, want",
    [(3, 16), (40, 48), (64, 64), (65, 48), (96, 48), (144, 48), (160, 64), (192, 64), (224, 64), (272, 64)],
)
def test_channels_are_shared_out_evenly_among_words(channels, want):
    assert per_word(channels) == want
    assert per_word(channels) * words(channels) >= channels
