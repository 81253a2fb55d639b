"""Buffers: encode and decode are inverse, the halo is real 0, tail channels are empty, sums fit what they stand by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcompile.files import validated
from mpcompile.ir.formats import Buffer, channel_pad, decode, encode, halo_level, halo_pattern
from mpcompile.ir.grid import bipolar, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.ir.planes import all_bits
from mpcompile.runtime.manifest import BufferEntry
from tests.unit.strategies import grids

halos = st.tuples(*[st.integers(0, 3)] * 4)
shapes = st.tuples(
    st.sampled_from([1, 3, 4, 5, 8, 9, 16, 17, 63, 64, 65, 96, 130]), st.integers(1, 4), st.integers(1, 4)
)
seeds = st.integers(0, 2**32 - 1)


def random_values(grid, shape, seed):
    return grid.value(np.random.default_rng(seed).integers(0, grid.levels, shape))


@given(grids().filter(lambda g: g.levels <= 256), shapes, halos, seeds)
def test_codes(grid, shape, halo, seed):
    q = random_values(grid, shape, seed)
    buffer = Buffer("t", "codes", shape, grid, halo)
    data = encode(q, buffer)
    c, h, w = shape
    assert data.dtype == np.uint8 and data.shape == buffer.buffer_shape and data.nbytes == buffer.nbytes
    assert data.shape == (halo[0] + h + halo[2], halo[1] + w + halo[3], channel_pad(c))
    np.testing.assert_array_equal(decode(data, buffer), q)
    assert not data[..., c:].any()
    outside = np.ones(data.shape[:2], bool)
    buffer.interior(outside)[...] = False
    assert (data[outside][:, :c] == halo_level(grid)).all()


@given(grids(), shapes, halos, seeds)
def test_planes_and_their_sums(grid, shape, halo, seed):
    q = random_values(grid, shape, seed)
    buffer = Buffer("t", "planes", shape, grid, halo)
    data = encode(q, buffer)
    c = shape[0]
    np.testing.assert_array_equal(decode(data, buffer), q)
    bits = all_bits(data, c)  # [HP, WP, P, W·64]
    assert not bits[..., c:].any()
    outside = np.ones(data.shape[:2], bool)
    buffer.interior(outside)[...] = False
    pattern = (halo_pattern(grid) >> np.arange(grid.planes)) & 1
    assert (bits[outside][:, :, :c] == pattern[:, None]).all()
    value_of_halo = int(np.dot(pattern, grid.plane_weights)) + grid.offset
    assert value_of_halo == (0 if grid.has_zero else grid.offset)
    # A pixel's sum is Σ_c Σ_i c_i·B_i of the very bits that lie there, halo included.
    sums = encode(q, Buffer("t", "sums", shape, grid, halo, "planes"))
    assert sums.dtype == np.int32
    np.testing.assert_array_equal(sums, np.tensordot(bits.sum(-1, dtype=np.int64), grid.plane_weights, 1))


@given(grids().filter(lambda g: g.levels <= 256), shapes, halos, seeds)
def test_sums_of_codes(grid, shape, halo, seed):
    q = random_values(grid, shape, seed)
    codes = encode(q, Buffer("t", "codes", shape, grid, halo))
    sums = encode(q, Buffer("t", "sums", shape, grid, halo, "codes"))
    np.testing.assert_array_equal(sums, codes.sum(-1, dtype=np.int64))


@given(shapes, seeds)
def test_float_and_plain(shape, seed):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for name in ("float", "plain"):
        buffer = Buffer("t", name, shape)
        data = encode(x, buffer)
        assert data.shape == buffer.buffer_shape and data.dtype == np.float32
        np.testing.assert_array_equal(decode(data, buffer), x)
    assert not encode(x, Buffer("t", "float", shape))[..., shape[0] :].any()


def test_halo_of_grids_with_and_without_zero():
    assert halo_pattern(bipolar()) == 0 and halo_level(odd(3)) == 0
    assert halo_pattern(twos_complement(4)) == 0 and halo_level(twos_complement(4)) == 8
    assert halo_pattern(unsigned(4, 5)) == 5 and halo_level(unsigned(4, 5)) == 5
    # a sum beside planes of zero point 5: every halo channel counts 5
    sums = encode(np.zeros((3, 1, 1), int), Buffer("t", "sums", (3, 1, 1), unsigned(4, 5), (1, 1, 1, 1), "planes"))
    assert (sums == 15).all()


def test_codes_hold_no_more_than_256_levels():
    with pytest.raises(ValueError, match="511 levels"):
        Buffer("t", "codes", (1, 1, 1), sign_magnitude(8))


@given(grids().filter(lambda g: g.levels <= 256), shapes, halos, st.sampled_from(["planes", "codes", "float", "sums"]))
def test_json(grid, shape, halo, name):
    buffer = Buffer("a:b", name, shape, grid, halo, "planes" if name == "sums" else "")
    assert validated(buffer.to_json(), BufferEntry, ValueError).buffer() == buffer


@pytest.mark.parametrize(
    "channels, want", [(1, 4), (4, 4), (5, 16), (16, 16), (17, 32), (64, 64), (65, 80), (144, 144)]
)
def test_channel_pad(channels, want):
    assert channel_pad(channels) == want
