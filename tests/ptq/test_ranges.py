"""Grids from what was seen: their kinds, and the least error, tried against all."""

import numpy as np
import pytest

from mpcompile.ptq.grids import Grid, signed, unsigned
from mpcompile.ptq.histogram import BINS, Histogram
from mpcompile.ptq.ranges import activation_grid, weight_grid

RNG = np.random.default_rng(0)


def seen(x: np.ndarray) -> Histogram:
    found = Histogram(float(x.min()), float(x.max()))
    for part in np.array_split(x, 3):
        found.add(part.astype(np.float32))
    assert found.counts.sum() == x.size
    return found


def error(grid: Grid, x: np.ndarray) -> float:
    return float(((grid(x.astype(np.float32)) - x) ** 2).mean())


NORMAL = RNG.normal(size=40_000)
KINDS = {
    "relu": np.maximum(NORMAL, 0),
    "normal": NORMAL,
    "hardswish": NORMAL * 2 * np.clip(NORMAL * 2 + 3, 0, 6) / 6,
    "outliers": np.concatenate([NORMAL, 30 * RNG.normal(size=20)]),
    "below 0": -np.abs(NORMAL) - 1,
}


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_least_error(kind, bits):
    """No grid of a fine search over both ends is much better than the one that is found; by its ends it is no better."""
    x = KINDS[kind]
    histogram = seen(x)
    grid = activation_grid(histogram, bits, "mse", 1.0)
    levels = (1 << bits) - 1
    found = error(grid, x)
    best = np.inf
    for low in np.linspace(min(x.min(), 0), 0, 24 if x.min() < 0 else 1):
        for high in np.linspace(0, max(x.max(), 0), 64) if x.max() > 0 else [0.0]:
            if high - low > 1e-3:
                scale = (high - low) / levels
                best = min(best, error(unsigned(bits, scale, int(np.clip(np.rint(-low / scale), 0, levels))), x))
    assert found <= 1.05 * best + 1e-12
    assert found <= 1.01 * error(activation_grid(histogram, bits, "minmax", 1.0), x)
    assert grid.codes(x.astype(np.float32)).min() >= grid.low and grid.codes(x.astype(np.float32)).max() <= grid.high
    assert grid(np.zeros(1, np.float32)) == 0  # padding is a code


def test_kinds():
    assert not activation_grid(seen(KINDS["relu"]), 4, "mse", 1.0).zero
    assert not activation_grid(seen(KINDS["relu"]), 4, "mse", 1.0).signed
    swish = activation_grid(seen(KINDS["hardswish"]), 4, "mse", 1.0)
    assert not swish.signed and 0 < swish.zero < 4
    even = activation_grid(seen(np.concatenate([NORMAL, -NORMAL])), 8, "minmax", 1.0)
    assert even.signed or even.zero in (127, 128)


def test_ends_and_percentiles():
    x = KINDS["outliers"]
    whole = activation_grid(seen(x), 8, "minmax", 1.0)
    span = (whole.high - whole.low + 1) * whole.scale[0]
    assert span >= x.max() - x.min() - whole.scale[0]
    most = activation_grid(seen(x), 8, "percentile", 0.999)
    assert (most.high - most.low) * most.scale[0] < 0.3 * span
    low, high = seen(KINDS["relu"]).percentile(0.99)
    assert low == 0 and high == pytest.approx(np.quantile(KINDS["relu"], 0.99), abs=2 * KINDS["relu"].max() / BINS)


@pytest.mark.parametrize("method", ["mse", "minmax", "percentile"])
@pytest.mark.parametrize("x", [np.zeros(10), np.full(10, 3.0), np.full(10, -3.0)], ids=str)
def test_what_is_always_the_same(x, method):
    grid = activation_grid(seen(x), 4, method, 0.999)
    assert grid.scale[0] > 0 and np.allclose(grid(x.astype(np.float32)), x, rtol=0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_have_a_scale_for_each_channel(axis):
    weight = (RNG.normal(size=(6, 5, 3, 3)) * np.array([1, 10, 0.1, 1, 1, 0])[:, None, None, None]).astype(np.float32)
    weight = np.moveaxis(weight, 0, axis)
    grid = weight_grid(weight, axis, 4, "minmax")
    assert grid.scale.shape == tuple(6 if a == axis else 1 for a in range(4)) and (grid.scale > 0).all()
    assert np.abs(grid(weight) - weight).max(tuple(a for a in range(4) if a != axis)) == pytest.approx(
        np.zeros(6), abs=float(grid.scale.max())
    )
    off = np.abs(grid(weight) - weight) / grid.scale
    assert off.max() <= 0.5 + 1e-4  # nothing is clipped
    nearer = weight_grid(weight, axis, 4, "mse")
    assert ((nearer(weight) - weight) ** 2).sum() < ((grid(weight) - weight) ** 2).sum()
    assert not grid(weight).take(5, axis).any()


def test_one_bit_of_weights():
    weight = np.array([[1.0, -2.0, 0.0], [4.0, 4.0, -1.0]], np.float32)
    grid = weight_grid(weight, 0, 1, "mse")
    assert grid.bipolar and grid.scale.ravel().tolist() == [1.0, 3.0]
    assert grid(weight).tolist() == [[1, -1, 1], [3, 3, -3]]


def test_codes_are_qonnxs():
    from qonnx.custom_op.general.quant import quant

    x = np.concatenate([RNG.normal(size=1000), np.arange(-20, 20) * 0.125]).astype(np.float32)
    for grid in (unsigned(3, 0.25, 3), unsigned(8, 0.01), signed(4, np.array([0.25])), signed(2, np.array([0.5]))):
        theirs = quant(x, grid.scale, np.float32(grid.zero), np.float32(grid.bits), grid.signed, False, "ROUND")
        np.testing.assert_array_equal(grid(x), theirs)
