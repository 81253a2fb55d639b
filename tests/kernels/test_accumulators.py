"""Sums at the extreme codes: every accumulator's proof, and kernels whose sums reach its limits, on every x86 level."""

import numpy as np
import pytest

from mpcompile.errors import ModelError
from mpcompile.ir import grid as grids
from mpcompile.kernels import accumulators
from mpcompile.schedules.x86_intrinsics import dot_instruction
from tests.kernels.harness import LEVELS
from tests.kernels.test_contract import convolution, run


@pytest.mark.parametrize(
    "max_level, weights",
    [
        (1, (0, 1)),
        (3, (-2, 1)),
        (15, (-8, 7)),
        (255, (-2, 2)),
        (255, (-64, 64)),
        (255, (-65, 64)),
        (255, (-128, 127)),
        (127, (-128, 127)),
        (3, (0, 0)),
    ],
)
def test_int16_steps_are_the_most_that_fit(max_level, weights):
    steps = accumulators.int16_steps(max_level, weights)
    for w in weights:
        assert -32768 <= steps * 2 * max_level * w <= 32767
    if steps < 1 << 14:
        assert any(not -32768 <= (steps + 1) * 2 * max_level * w <= 32767 for w in weights)


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 1), (7, 7)])
@pytest.mark.parametrize("steps", [1, 2, 13, 36, 128])
@pytest.mark.parametrize("most", [1, 2, 31, 200, 5000])
def test_chunks_fit_and_tile_the_reduction(kernel, steps, most):
    inner = accumulators.chunk(*kernel, steps, most)
    assert np.prod(inner) <= most
    assert all(whole % part == 0 for whole, part in zip((*kernel, steps), inner))


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_the_proof_decides_the_step(bits):
    kind = lambda level, low, high: (
        dot_instruction(bits, False, level, (low, high), 64).intrin.split(".")[1].split("_")[0]
    )
    assert kind(15, -8, 7) == "maddubs16"
    assert kind(255, -32, 32) == "maddubs16"
    assert kind(255, -64, 63) == "maddubs"  # 2·255·64 = 32640: one step fits, two do not
    assert kind(255, -65, 63) == "madd"  # −33150
    assert kind(127, -128, 127) == "maddubs"
    assert kind(128, -128, 127) == "maddubs"  # −32768 fits
    assert kind(129, -128, 127) == "madd"


def extremes(weight_bits: int, activation_bits: int, channels: int, grid_w=None):
    """One 3×3 convolution of whose windows one reaches K·max|w|·max a: half of the output channels up, half down."""
    rng = np.random.default_rng(weight_bits)
    grid_w = grid_w or (grids.twos_complement(weight_bits) if weight_bits > 1 else grids.bipolar())
    case = convolution(
        rng,
        channels,
        3,
        4,
        16,
        (3, 3),
        (1, 1),
        (1, 1, 1, 1),
        grid_w,
        grids.unsigned(activation_bits),
        grids.unsigned(4),
    )
    part, x = case[0].terms[0].parts[0], case[2]["x"]
    part.q[::2], part.q[1::2] = grid_w.hi, grid_w.lo
    x[:] = (1 << activation_bits) - 1
    return case


BITS = [(1, 1), (2, 2), (4, 4), (3, 8), (6, 8), (7, 8), (8, 4)]


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("w, a", BITS)
def test_dot_at_the_extreme_codes(target, w, a):
    """K = 9·512: 16-bit sums are as long as the proof lets them be."""
    run(extremes(w, a, 512), "dot", target)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("channels", [64, 192, 1024, 1984])
def test_popcount_at_the_extreme_codes(target, channels):
    """Rows of 3 and 9 words, a tap of 31, all bits set: 8-bit counts come up to 248. With 1024 channels a tap has 64 steps
    of nibbles, one more than fit."""
    run(extremes(2, 1, channels, grids.unsigned(2)), "popcount", target)


@pytest.mark.parametrize("multiplier, offset", [(1, 0), (2, -255), (-2, 255), (2, 7)])
def test_no_sum_of_dot_reaches_farther_than_its_bound(multiplier, offset):
    """Nor the two that it is made of, at any step; where all products have the sign of the rest, it reaches the bound."""
    w8 = np.random.default_rng(offset + 300).integers(-128, 128, (6, 5, 3, 3))
    w8[0], w8[1] = 127, -128
    levels = 200 * np.concatenate([w8 > 0, w8 < 0, np.ones_like(w8, bool)]).reshape(3, 6, -1)
    reach = accumulators.dot_reach(w8, 200, multiplier, offset)
    products = multiplier * np.cumsum(levels * w8.reshape(6, -1), -1)
    sums = offset * np.cumsum(levels, -1)
    assert max(abs(products).max() + abs(sums).max(), abs(products + sums).max()) <= reach
    assert reach == 200 * 45 * (128 * abs(multiplier) + abs(offset))


def test_no_sum_of_popcounts_reaches_farther_than_its_bound():
    """Of weights 2u − 3, offset included, and activations of three bits, as many taps as 2·3·3."""
    weights, activations = grids.odd(2), grids.twos_complement(3)
    reach = accumulators.popcount_reach(18, weights.plane_weights, activations.plane_weights, weights.offset)
    assert reach == 18 * (1 + 2 + 4) * (2 + 4 + 3)


def test_sums_that_int32_cannot_hold_are_refused():
    rng = np.random.default_rng(0)
    case = convolution(
        rng, 4096, 3, 3, 16, (3, 3), (1, 1), (0, 0, 0, 0), grids.twos_complement(8), grids.odd(8), grids.unsigned(4)
    )
    case[0].terms[0].parts[0].q[:] = -128
    for family in ("dot", "popcount"):
        with pytest.raises(
            ModelError, match=r"layer conv: sums of 36864 products may reach ±\d+, which int32 does not"
        ):
            run(case, family, "x86-64-v3")
