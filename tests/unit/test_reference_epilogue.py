"""The epilogue's instructions: float32 with one rounding each, every rounding mode, broadcasting."""

import math
from fractions import Fraction

import numpy as np
import pytest

from mpcompile.ir.graph import ROUNDINGS
from mpcompile.ir.grid import odd, unsigned
from mpcompile.ir.layer import Clamp, Divide, Fma, Load, LookUp, Plus, Round, Slope, Times, Value
from mpcompile.reference.epilogue import evaluate
from mpcompile.reference.fma import fma


def by_definition(x: float, rounding: str) -> int:
    """Each mode in exact arithmetic, as its name says."""
    f, magnitude, sign = Fraction(x), abs(Fraction(x)), -1 if x < 0 else 1
    return {
        "half_even": round(f),
        "ceil": math.ceil(f),
        "floor": math.floor(f),
        "sign": int(f >= 0),
        "up": sign * math.ceil(magnitude),
        "down": sign * math.floor(magnitude),
        "half_up": sign * math.floor(magnitude + Fraction(1, 2)),
        "half_down": sign * math.ceil(magnitude - Fraction(1, 2)),
    }[rounding]


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_roundings(rounding):
    ties = np.arange(-12, 13, dtype=np.float32) / 2
    x = np.concatenate(
        [
            ties,
            np.nextafter(ties, np.float32(99)),
            np.nextafter(ties, np.float32(-99)),
            np.float32([0.49999997, -0.49999997, 8388607.5, 1e30, -1e30, 1e-40, -1e-40]),
        ]
    ).reshape(1, 1, -1)
    for lo, hi in ((-4, 3), (0, 1), (0, 255)):
        level = evaluate([Load(0), Round(0, rounding, lo, hi)], [x])[1]
        want = [min(max(by_definition(float(v), rounding), lo), hi) - lo for v in x.flat]
        assert level.dtype == np.int64 and level.ravel().tolist() == want


def test_load_rounds_to_nearest_even():
    acc = np.array([(1 << 24) + 1, (1 << 24) + 3, -(1 << 31), (1 << 31) - 1]).reshape(1, 1, 4)
    assert evaluate([Load(0)], [acc])[0].ravel().tolist() == [1 << 24, (1 << 24) + 4, -(1 << 31), 1 << 31]


def test_tables_and_products_by_hand():
    acc = np.array([-9, 0, 1, 9]).reshape(1, 1, 4)
    values = evaluate([Load(0), Round(0, "half_even", -1, 1), LookUp(1, np.float32([0.1, 20, -3])), Times(2, 0)], [acc])
    tenth = np.float32(0.1)
    assert values[2].ravel().tolist() == [tenth, 20, -3, -3] and values[2].dtype == np.float32
    assert values[3].ravel().tolist() == [np.float32(-9) * tenth, 0, -3, -27]


def test_a_whole_epilogue_by_hand():
    """Two terms, per-channel constants, a skip, PRelu, two outputs, a requantize: each step written out in float32."""
    rng = np.random.default_rng(0)
    acc, skip = rng.integers(-5000, 5000, (3, 4, 5)), rng.normal(size=(3, 4, 5)).astype(np.float32)
    a, b, slope = rng.normal(size=(3, 3)).astype(np.float32)
    tenth = np.float32([0.1])
    values = evaluate(
        [
            Load(0),
            Fma(0, a * tenth, b),
            Load(1),
            Fma(1, np.float32([3.3]), 2),
            Slope(3, slope),
            Clamp(4, -7.7, 9.1),
            Round(5, "half_even", -8, 7),
            Value(6, odd(4)),
            Divide(7, tenth * 3),
            Plus(8, 3),
            Round(9, "half_up", 0, 255),
        ],
        [acc, skip],
    )
    one = np.float32

    def channels(c):
        return c.reshape(3, 1, 1)

    v1 = fma(acc.astype(one), channels(a * tenth), channels(b))
    v3 = fma(v1, one(3.3), skip)
    v4 = np.where(v3 >= 0, v3, v3 * channels(slope))
    v5 = np.clip(v4, one(-7.7), one(9.1))
    v6 = np.clip(np.rint(v5), -8, 7).astype(int) + 8
    v8 = (2 * v6 - 15).astype(one) / (tenth * 3)
    v9 = v8 + v3
    v10 = np.clip(np.trunc(v9.astype(np.float64) + np.copysign(0.5, v9)), 0, 255)
    for i, want in {1: v1, 3: v3, 4: v4, 5: v5, 6: v6, 8: v8, 9: v9, 10: v10}.items():
        np.testing.assert_array_equal(values[i], want)
    assert all(v.dtype == np.float32 for i, v in enumerate(values) if i not in (6, 10))


def test_a_value_is_the_grids():
    levels = np.arange(8, dtype=np.int64).reshape(8, 1, 1)
    value = evaluate([Load(0), Round(0, "half_even", 0, 7), Value(1, unsigned(3, 2))], [levels])[2]
    assert value.dtype == np.float32 and value.ravel().tolist() == list(range(-2, 6))


def test_what_is_no_instruction():
    with pytest.raises(TypeError, match="str is no epilogue"):
        evaluate(["Load"], [])
    with pytest.raises(KeyError, match="nearest"):
        evaluate([Load(0), Round(0, "nearest", 0, 1)], [np.zeros((1, 1, 1), int)])
