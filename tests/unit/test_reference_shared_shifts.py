"""Shared shifts: round trips, optimality, and the error of Gaussian weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcompile.ir.planes import from_planes, to_planes
from mpcompile.reference.shared_shifts import GRID, choices, decode, encode, from_bytes, to_bytes, to_group_planes

cases = st.tuples(
    st.integers(1, 7), st.integers(1, 9), st.booleans(), st.sampled_from([0.0, 0.5, 2.0]), st.integers(0, 2**32 - 1)
)


def random_weights(seed):
    return np.random.default_rng(seed).integers(-127, 128, (2, 3, 11))


@settings(deadline=None)
@given(cases)
def test_decoded_forms_agree(case):
    count, group, consecutive, alpha, seed = case
    stored = encode(random_weights(seed), count, group, consecutive=consecutive, alpha=alpha)
    q = decode(stored)
    assert q.shape == (2, 3, 11)
    np.testing.assert_array_equal(from_planes(to_planes(q, GRID), GRID), q)
    planes, weights = to_group_planes(stored)
    assert planes.shape == (2 * count, 2, 3, 11) and set(np.unique(planes)) <= {0, 1}
    np.testing.assert_array_equal((planes * weights).sum(0), q)
    for c in range(0, 11, group):
        assert (weights[..., c : c + group] == weights[..., c : c + 1]).all(), "a group shares its plane weights"
    data = to_bytes(stored)
    again = from_bytes(data, (2, 3, 11), count, group, consecutive=consecutive)
    np.testing.assert_array_equal(decode(again), q)
    # Every value that comes out goes in again without an error.
    np.testing.assert_array_equal(decode(encode(q, count, group, consecutive=consecutive)), q)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 7), st.booleans(), st.sampled_from([0.0, 1.0]), st.integers(0, 2**32 - 1))
def test_no_other_choice_of_shifts_is_better(count, consecutive, alpha, seed):
    q = np.random.default_rng(seed).integers(-127, 128, (1, 4))

    def cost(e):
        return (e**2).sum() + alpha * e.sum() ** 2

    got = cost(decode(encode(q, count, 4, consecutive=consecutive, alpha=alpha)) - q)
    costs = []
    for shifts in choices(count, consecutive):
        values = np.array([sum(1 << s for j, s in enumerate(shifts) if m >> j & 1) for m in range(1 << count)])
        nearest = values[np.abs(np.abs(q)[..., None] - values).argmin(-1)]
        costs.append(cost(np.sign(q) * nearest - q))
    assert got == min(costs)


def test_seven_shifts_are_exact_and_more_shifts_are_never_worse():
    q = random_weights(0)
    np.testing.assert_array_equal(decode(encode(q, 7, 4)), q)
    errors = [((decode(encode(q, n, 4)) - q) ** 2).sum() for n in range(1, 8)]
    assert errors == sorted(errors, reverse=True) and errors[-1] == 0
    for n in range(1, 8):
        consecutive = ((decode(encode(q, n, 4, consecutive=True)) - q) ** 2).sum()
        assert consecutive >= errors[n - 1], "consecutive shifts are some of all shifts"


def test_a_bias_is_punished():
    q = np.random.default_rng(0).normal(0, 30, (500, 16)).clip(-127, 127).astype(int)
    bias = [np.abs((decode(encode(q, 2, 16, alpha=a)) - q).sum(1)).mean() for a in (0.0, 1.0)]
    assert bias[1] < 0.8 * bias[0]


@pytest.mark.parametrize(
    "count, group, swis, swis_c", [(1, 16, 2.1875, 2.1875), (2, 4, 4.5, 3.75), (3, 4, 6.25, 4.75), (4, 4, 8.0, 5.75)]
)
def test_storage(count, group, swis, swis_c):
    q = np.random.default_rng(0).integers(-127, 128, (16, 64))
    for consecutive, bits in ((False, swis), (True, swis_c)):
        stored = encode(q, count, group, consecutive=consecutive)
        assert stored.bits_per_weight == bits
        assert len(to_bytes(stored)) * 8 == bits * q.size


ERRORS = {  # RMSE in units of the last bit: truncated, rounded, SWIS-C G4, SWIS G4, SWIS G16
    2: (15.80, 9.26, 4.66, 4.06, 5.59),
    3: (8.30, 4.63, 2.31, 1.86, 2.85),
    4: (4.08, 2.35, 1.19, 0.90, 1.50),
    5: (1.86, 1.23, 0.63, 0.41, 0.80),
}


@pytest.mark.parametrize("count", ERRORS)
def test_error_of_gaussian_weights(count):
    """Against another computation, for N(0, 1) weights scaled to ±127; so many weights settle it to 0.03."""
    w = np.random.default_rng(0).standard_normal(1 << 18)
    q = np.rint(w / np.abs(w).max() * 127).astype(np.int64).reshape(-1, 64)
    unit = 1 << (7 - count)
    truncated = np.abs(q) // unit * unit
    rounded = np.minimum((np.abs(q) + unit // 2) // unit * unit, 128 - unit)
    said = [np.sign(q) * truncated, np.sign(q) * rounded] + [
        decode(encode(q, count, group, consecutive=c)) for group, c in ((4, True), (4, False), (16, False))
    ]
    rmse = [np.sqrt(((v - q) ** 2).mean()) for v in said]
    np.testing.assert_allclose(rmse, ERRORS[count], atol=0.03)


def test_what_is_refused():
    with pytest.raises(ValueError, match="-128 is not on"):
        encode(np.array([[-128]]), 2, 4)
    with pytest.raises(ValueError, match="1 to 7 shifts"):
        encode(np.array([[1]]), 8, 4)
    with pytest.raises(ValueError, match="3 bytes are no"):
        from_bytes(b"abc", (2, 3, 11), 2, 4)
