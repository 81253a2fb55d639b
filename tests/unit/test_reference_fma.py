"""The float32 fma against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from mpcompile.reference.fma import fma


def exact(x, a, b) -> np.float32:
    """x·a + b by Fractions, rounded once to float32's nearest even by integer arithmetic."""
    value = Fraction(float(x)) * Fraction(float(a)) + Fraction(float(b))
    if value == 0:
        return np.float32(np.float64(x) * np.float64(a) + np.float64(b))  # exact; the sign of zero as IEEE says
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent  # 2^exponent ≤ magnitude < 2^(exponent+1)
    unit = Fraction(2) ** max(exponent - 23, -149)
    steps = round(magnitude / unit)  # Python rounds a Fraction half to even
    rounded = steps * unit
    with np.errstate(over="ignore"):
        result = np.float32(np.inf) if rounded >= Fraction(2) ** 128 else np.float32(float(rounded))
    return -result if value < 0 else result


def check(x, a, b):
    x, a, b = (np.asarray(v, np.float32) for v in (x, a, b))
    got = fma(x, a, b)
    want = np.array([exact(*t) for t in zip(x, a, b)], np.float32)
    wrong = np.flatnonzero(got.view(np.int32) != want.view(np.int32))
    assert not wrong.size, (x[wrong[0]], a[wrong[0]], b[wrong[0]], got[wrong[0]], want[wrong[0]])
    return got


def test_random_bit_patterns():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, (3, 6000), dtype=np.uint64).astype(np.uint32).view(np.float32)
    finite = np.isfinite(bits).all(0)
    check(*bits[:, finite])


def test_numbers_of_an_epilogue():
    rng = np.random.default_rng(1)
    acc = rng.integers(-(2**31), 2**31, 4000).astype(np.float32)
    check(acc, rng.lognormal(-6, 3, 4000) * rng.choice([-1, 1], 4000), rng.normal(0, 10, 4000))


def test_cancellation_and_near_ties():
    """b close to −x·a, and b such that the sum lies at or beside the middle of two float32."""
    rng = np.random.default_rng(2)
    x, a = rng.normal(0, 1, (2, 4000)).astype(np.float32)
    product = x.astype(np.float64) * a
    check(x, a, (-product).astype(np.float32))
    half_ulp = np.spacing(np.abs(product).astype(np.float32)) / 2
    check(x, a, half_ulp)
    check(x, a, np.nextafter(half_ulp, np.float32(0)))


def test_double_rounding_is_avoided():
    """1 + 2^-24 ± 2^-60: float64 rounds the last bit away, and the tie then goes the wrong way."""
    one, tiny = np.float32(1), np.float32(2.0**-30)
    x = np.array([tiny, -tiny, tiny, -tiny], np.float32)
    b = np.float32(1 + 2.0**-23)
    check(x, np.full(4, tiny), np.full(4, b))
    # (1 + 2^-12)² = 1 + 2^-11 + 2^-24: exactly half way; then one bit far below decides.
    x = np.full(3, 1 + 2.0**-12, np.float32)
    b = np.array([0, 2.0**-80, -(2.0**-80)], np.float32)
    got = check(x, x, b)
    base = np.float32(1 + 2.0**-11)
    assert list(got) == [base, np.nextafter(base, np.float32(2)), base]
    twice = (x.astype(np.float64) * x + b).astype(np.float32)
    assert twice[1] != got[1], "the naive way would pass too: this test shows nothing"
    assert one == fma(one, one, np.float32(0))


def test_subnormals_and_overflow():
    rng = np.random.default_rng(3)
    x = rng.integers(1, 1 << 24, 3000).astype(np.float32) * np.float32(2.0**-100)
    a = rng.integers(1, 1 << 24, 3000).astype(np.float32) * np.float32(2.0**-80)
    b = rng.integers(-(1 << 20), 1 << 20, 3000).astype(np.float64) * 2.0**-149
    check(x, a, b.astype(np.float32))
    top = np.finfo(np.float32).max
    check([top, top, top, -top], [1, 1, 2, 2], [top * 2.0**-25, top * 2.0**-24, -top, top])


@pytest.mark.parametrize(
    "x, a, b, want",
    [
        (np.inf, 2, 1, np.inf),
        (np.inf, -2, 1, -np.inf),
        (1, 1, -np.inf, -np.inf),
        (np.inf, 0, 1, np.nan),
        (np.inf, 1, -np.inf, np.nan),
        (np.nan, 1, 1, np.nan),
    ],
)
def test_infinities(x, a, b, want):
    np.testing.assert_equal(fma(np.float32(x), np.float32(a), np.float32(b)), np.float32(want))


def test_broadcasts():
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    a = np.array([1, 2], np.float32).reshape(2, 1, 1)
    assert fma(x, a, np.float32(1)).shape == x.shape
    np.testing.assert_array_equal(fma(x, a, np.float32(1)), x * a + 1)
