"""The plane identity against the plain product: every row of the table, all bit pairs, both families, borders."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcompile.ir import formats
from mpcompile.ir.grid import bipolar, half_integer, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.weights import dot_form
from mpcompile.reference.ops import contract
from mpcompile.reference.planes_product import border_term, by_dot, by_popcount, conv, pixel_sums
from tests.unit.strategies import grids

PAIRS = [(w, a) for w in range(1, 9) for a in range(1, 9)]
WEIGHTS = {
    "twos_complement": twos_complement,
    "odd": odd,
    "sign_magnitude": sign_magnitude,
    "unsigned": unsigned,
    "half_integer": lambda b: half_integer(b, (1 << b) + 1),
}
ACTIVATIONS = {
    "unsigned": unsigned,
    "zero_point": lambda b: unsigned(b, (1 << b) - 1),
    "twos_complement": twos_complement,
    "odd": odd,
    "half_integer": lambda b: half_integer(b, 3, signed=True),
}


def extremes_and_random(grid, rows, k, rng):
    """Rows of the smallest, the largest, alternating, and random values."""
    q = grid.value(rng.integers(0, grid.levels, (rows, k)))
    q[0], q[1], q[2] = grid.lo, grid.hi, np.where(np.arange(k) % 2, grid.lo, grid.hi)
    return q


@pytest.mark.parametrize("w_bits, a_bits", PAIRS)
def test_every_bit_pair_and_kind(w_bits, a_bits):
    rng = np.random.default_rng(8 * w_bits + a_bits)
    for make_w in WEIGHTS.values():
        for make_a in ACTIVATIONS.values():
            grid_w, grid_a = make_w(w_bits), make_a(a_bits)
            w, a = extremes_and_random(grid_w, 4, 71, rng), extremes_and_random(grid_a, 5, 71, rng)
            plain = w @ a.T
            np.testing.assert_array_equal(by_popcount(w, grid_w, a, grid_a), plain)
            if grid_w.levels <= 256:
                np.testing.assert_array_equal(by_dot(w, dot_form(grid_w), a, grid_a), plain)


@settings(deadline=None)
@given(grids(), grids(), st.integers(1, 150), st.integers(0, 2**32 - 1))
def test_any_two_grids(grid_w, grid_a, k, seed):
    rng = np.random.default_rng(seed)
    w, a = extremes_and_random(grid_w, 3, k, rng), extremes_and_random(grid_a, 3, k, rng)
    np.testing.assert_array_equal(by_popcount(w, grid_w, a, grid_a), w @ a.T)
    if grid_w.levels <= 256 and grid_a.levels <= 256:
        np.testing.assert_array_equal(by_dot(w, dot_form(grid_w), a, grid_a), w @ a.T)


def test_any_form_will_do():
    q_w, q_a = odd(8).values[None], unsigned(8, 7).values[None]
    for form in ((2, 1), (1, 0)):
        if form == (1, 0):
            with pytest.raises(ValueError, match="not 1·w8"):
                by_dot(q_w, form, q_a, unsigned(8, 7))
        else:
            np.testing.assert_array_equal(by_dot(q_w, form, q_a, unsigned(8, 7)), q_w @ q_a.T)
    few = odd(3).values[None]
    for form in ((1, 0), (2, 1), (2, -9), (1, 100)):
        np.testing.assert_array_equal(by_dot(few, form, few, odd(3)), few @ few.T)


@settings(deadline=None, max_examples=60)
@given(grids(), grids().filter(lambda g: g.levels <= 256), st.integers(0, 2**32 - 1))
def test_convolutions_with_borders(grid_w, grid_a, seed):
    rng = np.random.default_rng(seed)
    groups, per_group, out = rng.integers(1, 3, 3)
    kernel, strides, dilations = (tuple(int(n) for n in rng.integers(1, 4, 2)) for _ in range(3))
    pads = tuple(int(n) for n in rng.integers(0, 4, 4))
    h, w = (
        max(1, d * (k - 1) + 1 - a - b) + int(rng.integers(0, 4))
        for k, d, a, b in zip(kernel, dilations, pads[:2], pads[2:])
    )
    q_w = grid_w.value(rng.integers(0, grid_w.levels, (groups * out, per_group, *kernel)))
    q_a = grid_a.value(rng.integers(0, grid_a.levels, (groups * per_group, h, w)))
    part = ContractPart("x", q_w, grid_w, strides, pads, dilations, int(groups))
    plain = contract(q_a, part)
    np.testing.assert_array_equal(conv(q_a, grid_a, part), plain)
    if grid_w.levels <= 256:
        np.testing.assert_array_equal(conv(q_a, grid_a, part, dot_form(grid_w)), plain)


def test_the_border_term_is_zero_inside_only():
    part = ContractPart("x", np.ones((1, 2, 3, 3), int), bipolar(), pads=(1, 1, 1, 1))
    assert border_term(part, -1, (4, 4))[0].tolist() == [
        [-10, -6, -6, -10],
        [-6, 0, 0, -6],
        [-6, 0, 0, -6],
        [-10, -6, -6, -10],
    ]


@given(grids().filter(lambda g: g.levels <= 256), st.integers(0, 2**32 - 1))
def test_pixel_sums_are_the_sums_format(grid, seed):
    q = grid.value(np.random.default_rng(seed).integers(0, grid.levels, (5, 3, 4)))
    for beside in ("planes", "codes"):
        buffer = formats.Buffer("t", "sums", (5, 3, 4), grid, (1, 2, 0, 1), beside)
        np.testing.assert_array_equal(buffer.interior(formats.encode(q, buffer)), pixel_sums(q, grid, beside))
