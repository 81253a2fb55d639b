"""Grids: every row of the table, both directions, all bitwidths; and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpcompile.files import validated
from mpcompile.ir.grid import Grid, bipolar, half_integer, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.ir.planes import from_planes, to_planes
from mpcompile.runtime.manifest import GridEntry
from tests.unit.strategies import grids

BITS = range(1, 9)


def all_rows() -> list[Grid]:
    rows = []
    for b in BITS:
        rows += [
            unsigned(b),
            unsigned(b, 1 << (b - 1)),
            unsigned(b, 3),
            twos_complement(b),
            twos_complement(b, 1),
            odd(b),
            sign_magnitude(b),
            half_integer(b, (1 << b) - 1),
            half_integer(b, -1, signed=True),
        ]
        if b > 1:
            rows += [unsigned(b, narrow=True), twos_complement(b, narrow=True)]
    return rows


@pytest.mark.parametrize("grid", all_rows(), ids=str)
def test_planes_and_back_for_every_value(grid):
    bits = to_planes(grid.values, grid)
    assert bits.shape == (grid.planes, grid.levels) and set(np.unique(bits)) <= {0, 1}
    by_hand = sum(c * b.astype(int) for c, b in zip(grid.plane_weights, bits)) + grid.offset
    np.testing.assert_array_equal(by_hand, grid.values)
    np.testing.assert_array_equal(from_planes(bits, grid), grid.values)
    np.testing.assert_array_equal(grid.value(grid.level(grid.values)), grid.values)
    assert grid.values[0] == grid.lo and grid.values[-1] == grid.hi and len(grid.values) == grid.levels
    assert grid.has_zero == (0 in grid.values)
    if grid.has_zero:
        assert grid.value(grid.zero_level) == 0
    else:
        with pytest.raises(ValueError, match="no code for 0"):
            _ = grid.zero_level


def test_ranges_are_the_tables():
    for b in BITS:
        top = (1 << b) - 1
        assert (unsigned(b).lo, unsigned(b).hi, unsigned(b).offset) == (0, top, 0)
        assert (unsigned(b, 2).lo, unsigned(b, 2).hi, unsigned(b, 2).offset) == (-2, top - 2, -2)
        assert (twos_complement(b).lo, twos_complement(b).hi) == (-(1 << b - 1), (1 << b - 1) - 1)
        assert (odd(b).lo, odd(b).hi, odd(b).step, odd(b).offset) == (-top, top, 2, -top)
        assert odd(b).plane_weights == tuple(2 << i for i in range(b))
        assert (sign_magnitude(b).lo, sign_magnitude(b).hi, sign_magnitude(b).planes) == (-top, top, 2 * b)
        assert half_integer(b, top) == odd(b)
    assert twos_complement(1).values.tolist() == [-1, 0]
    assert bipolar() == odd(1) and bipolar().values.tolist() == [-1, 1] and not bipolar().has_zero
    assert twos_complement(4, narrow=True).lo == -7 and unsigned(4, narrow=True).hi == 14
    assert unsigned(8).bits == 8 and odd(8).bits == 8 and sign_magnitude(1).bits == 2 and unsigned(1).bits == 1


def test_sign_magnitude_uses_one_sign_at_a_time():
    grid = sign_magnitude(3)
    bits = to_planes(grid.values, grid)
    assert not (bits[:3].any(0) & bits[3:].any(0)).any()


@given(grids(), st.integers(-1000, 1000))
def test_a_value_off_the_grid_is_refused(grid, q):
    if q in grid.values:
        assert grid.values[grid.level(np.array(q))] == q
    else:
        with pytest.raises(ValueError, match=f"{q} is not on"):
            grid.level(np.array([grid.lo, q]))


@given(grids())
def test_json(grid):
    again = validated(grid.to_json(), GridEntry, ValueError).grid()
    assert again == grid and hash(again) == hash(grid)


@given(grids(), st.data())
def test_a_bit_pattern_is_its_value(grid, data):
    k = data.draw(st.integers(0, grid.levels - 1))
    pattern = int(grid.patterns[k])
    assert sum(c for i, c in enumerate(grid.plane_weights) if pattern >> i & 1) + grid.offset == grid.values[k]


@pytest.mark.parametrize("make", [unsigned, twos_complement, odd, sign_magnitude, lambda b: half_integer(b, 1)])
@pytest.mark.parametrize("bits", [0, 9, 17, -1, 1.5])
def test_bitwidths_out_of_range(make, bits):
    with pytest.raises(ValueError, match="bitwidth must be 1 to 8"):
        make(bits)


def test_grids_that_are_none():
    with pytest.raises(ValueError, match="no sum of the planes"):
        Grid((1, 2), 0, 0, 4)
    with pytest.raises(ValueError, match="no sum of the planes"):
        Grid((1, 4), 0, 0, 5)  # 2 and 3 are missing inside
    with pytest.raises(ValueError, match="no grid runs"):
        Grid((1, 2), 0, 3, 0)
    with pytest.raises(ValueError, match="no grid runs"):
        Grid((2,), -1, -1, 2, 2)
    with pytest.raises(ValueError, match="1 to 16 planes"):
        Grid(tuple(1 << i for i in range(17)), 0, 0, 1)
    with pytest.raises(ValueError, match="whole zero point"):
        half_integer(2, 2)
