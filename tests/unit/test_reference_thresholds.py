"""Thresholds equal the epilogue at every accumulator of the range, exhaustively; and None where they would not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcompile.ir.graph import ROUNDINGS
from mpcompile.ir.grid import odd
from mpcompile.ir.layer import Clamp, Divide, Fma, Load, Plus, Round, Slope, Value
from mpcompile.reference.epilogue import evaluate
from mpcompile.reference.thresholds import thresholds

CHANNELS = 5
INT32 = np.iinfo(np.int32)


def check(epilogue, lo, hi, channels=CHANNELS):
    """Compares at every accumulator of every channel's own range; returns the thresholds."""
    found = thresholds(epilogue, len(epilogue) - 1, channels, lo, hi)
    assert found is not None
    levels = epilogue[-1].hi - epilogue[-1].lo + 1
    assert found.T.dtype == np.int32 and found.T.shape == (levels - 1, channels) and found.flip.dtype == bool
    assert (np.diff(found.T.astype(np.int64), axis=0) >= 0).all()
    lo, hi = np.broadcast_to(lo, channels), np.broadcast_to(hi, channels)
    every = np.arange(lo.min(), hi.max() + 1)
    acc = np.broadcast_to(every, (channels, 1, len(every)))
    want = evaluate(epilogue, [acc])[-1]
    inside = (acc >= lo.reshape(-1, 1, 1)) & (acc <= hi.reshape(-1, 1, 1))
    np.testing.assert_array_equal(found.level(acc)[inside], want[inside])
    return found


@st.composite
def chains(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def scales():
        size = draw(st.sampled_from([1, CHANNELS]))
        s = rng.lognormal(-3, 2, size) * rng.choice([-1, 0, 1, 1], size)
        # Powers of two and halves make many ties.
        return (np.sign(s) * 2.0 ** rng.integers(-6, 2, size) if draw(st.booleans()) else s).astype(np.float32)

    def shifts():
        return (rng.integers(-40, 40, draw(st.sampled_from([1, CHANNELS]))) / 4).astype(np.float32)

    epilogue = [Load(0)]
    for _ in range(draw(st.integers(0, 4))):
        x = len(epilogue) - 1
        match draw(st.sampled_from(["fma", "fma", "clamp", "divide", "slope", "round"])):
            case "fma":
                epilogue.append(Fma(x, scales(), shifts()))
            case "clamp":
                epilogue.append(Clamp(x, float(rng.integers(-9, 1)), float(rng.integers(1, 40))))
            case "divide":
                epilogue.append(Divide(x, np.where(s := scales(), s, np.float32(3))))
            case "slope":
                epilogue.append(Slope(x, np.abs(scales())))
            case "round":
                epilogue += [Round(x, draw(st.sampled_from(ROUNDINGS[:-1])), -7, 8), Value(x + 1, odd(4))]
    lo = draw(st.integers(-20, 3))
    rounding = draw(st.sampled_from(ROUNDINGS))
    ends = (0, 1) if rounding == "sign" else (lo, lo + draw(st.integers(1, 20)))
    epilogue.append(Round(len(epilogue) - 1, rounding, *ends))
    acc_lo = rng.integers(-900, 1, CHANNELS)
    return epilogue, acc_lo, acc_lo + rng.integers(0, 1500, CHANNELS)


@settings(deadline=None, max_examples=300)
@given(chains())
def test_every_accumulator(case):
    check(*case)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("scale", [0.5, -0.5, 0.25, -0.1, 0.0, 1e-3, 1e6])
def test_ties_and_signs(rounding, scale):
    ends = (0, 1) if rounding == "sign" else (-3, 4)
    check([Load(0), Fma(0, np.float32([scale]), np.float32([-0.5])), Round(1, rounding, *ends)], -3000, 3000, 1)


def test_eight_bits_and_a_large_range():
    rng = np.random.default_rng(0)
    a = (rng.lognormal(-8, 1, 3) * [1, -1, 1]).astype(np.float32)
    check(
        [Load(0), Fma(0, a, rng.normal(100, 50, 3).astype(np.float32)), Round(1, "half_even", 0, 255)],
        -(1 << 18),
        1 << 18,
        3,
    )


def test_near_the_ends_of_int32():
    """Conversion to float32 rounds there: many accumulators share a value."""
    epilogue = [Load(0), Fma(0, np.float32([2.0**-28, -(2.0**-28)]), np.float32([0])), Round(1, "half_even", -8, 7)]
    found = thresholds(epilogue, 2, 2, INT32.min + 1, INT32.max - 1)
    near = (found.T.astype(np.int64).T[:, :, None] + np.arange(-300, 301)).reshape(2, 1, -1)
    near ^= found.mask.astype(np.int64).reshape(2, 1, 1)
    near = near.clip(INT32.min + 1, INT32.max - 1)
    np.testing.assert_array_equal(found.level(near), evaluate(epilogue, [near])[-1])
    assert thresholds(epilogue, 2, 2, INT32.min + 1, INT32.max) is None  # a threshold past the end has no int32
    assert thresholds(epilogue, 2, 2, INT32.min, INT32.max - 1) is None  # nor has one of a flipped channel


def test_constant_channels():
    scaled = Fma(0, np.float32([0, 0, 1]), np.float32([-9, 2, 0]))
    found = check([Load(0), scaled, Round(1, "half_even", 0, 3)], -5, 5, 3)
    assert (found.T[:, 0] == 6).all() and found.T[:, 1].tolist() == [-5, -5, 6] and not found.flip.any()


def test_which_term():
    one = np.float32([1])
    epilogue = [Load(0), Load(1), Fma(1, -one, one), Round(2, "floor", 0, 3), Plus(0, 2), Round(4, "floor", 0, 3)]
    found = thresholds(epilogue, 3, 1, -9, 9)
    assert found.term == 1 and found.flip.tolist() == [True] and found.mask.tolist() == [-1]
    assert thresholds(epilogue, 5, 1, -9, 9) is None  # two terms
    assert thresholds(epilogue, 2, 1, -9, 9) is None  # no Round


@pytest.mark.parametrize(
    "step",
    [
        Slope(0, np.float32([0.1, -0.1])),
        Fma(0, np.float32([1, 1]), 0),
        Fma(0, np.float32([np.inf]), np.float32([0])),
        Fma(0, np.float32([1]), np.float32([np.nan])),
        Divide(0, np.float32([0, 1])),
        Plus(0, 0),
    ],
)
def test_what_is_no_monotone_chain(step):
    assert thresholds([Load(0), step, Round(1, "half_even", 0, 3)], 2, 2, -9, 9) is None


def test_a_value_that_overflows_on_the_way():
    huge, zero, one = (np.float32([v]) for v in (1e38, 0, 1))
    epilogue = [Load(0), Fma(0, huge, zero), Fma(1, zero, one), Round(2, "floor", 0, 3)]
    assert thresholds(epilogue, 3, 1, -9, 9) is None and thresholds(epilogue, 3, 1, -3, 3) is not None
