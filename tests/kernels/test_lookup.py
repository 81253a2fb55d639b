"""Contractions by look-up on AVX2: bit pairs, digits, chunks, shapes, extreme codes; every byte against the reference."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.families import lookup_form
from mpcompile.kernels.select import candidates
from mpcompile.targets import load_target
from tests.kernels.test_contract import activation_grid, convolution, run, weight_grid

TARGET = "x86-64-v3"
PAIRS = [(w, a) for w in (1, 2, 3, 8) for a in range(1, 9)]


@pytest.mark.parametrize("w, a", PAIRS)
def test_bit_pair(w, a):
    rng = np.random.default_rng(64 * w + a)
    case = convolution(
        rng,
        13,
        5,
        6,
        20,
        (3, 3),
        (1, 1),
        (1, 1, 1, 1),
        weight_grid(w, w + a),
        activation_grid(a, w + a),
        grids.unsigned(3),
    )
    run(case, "lookup", TARGET)


SHAPES = [
    # channels, height, width, outputs, kernel, stride, pads (top, left, bottom, right), dilation
    (64, 6, 8, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (128, 7, 7, 192, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    (65, 9, 11, 64, (3, 5), (2, 1), (0, 2, 1, 1), (1, 1)),
    (32, 8, 7, 128, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    (200, 1, 1, 1024, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape(shape):
    channels, height, width, outputs, kernel, stride, pads, dilation = shape
    rng = np.random.default_rng(channels)
    run(
        convolution(
            rng,
            channels,
            height,
            width,
            outputs,
            kernel,
            stride,
            pads,
            grids.odd(2),
            grids.twos_complement(3),
            grids.unsigned(3),
            dilation,
        ),
        "lookup",
        TARGET,
    )


@pytest.mark.parametrize("channels, activation_bits", [(112, 1), (192, 2), (480, 4), (512, 4), (512, 8)])
def test_extreme_codes(channels, activation_bits):
    """All bits set: 8-bit sums come up to 252, 16-bit ones up to 64800."""
    case = convolution(
        np.random.default_rng(0),
        channels,
        3,
        3,
        32,
        (3, 3),
        (1, 1),
        (1, 1, 1, 1),
        grids.unsigned(1),
        grids.unsigned(activation_bits),
        grids.unsigned(4),
    )
    case[0].terms[0].parts[0].q[:], case[2]["x"][:] = 1, (1 << activation_bits) - 1
    run(case, "lookup", TARGET)


def test_digits_are_as_few_as_fit():
    assert [lookup_form.digit_bits(a, 576, 3) for a in range(1, 9)] == [1, 2, 3, 4, 5, 3, 4, 4]
    assert [lookup_form.digit_bits(a, 1, 0) for a in range(1, 9)] == [1, 2, 3, 4, 5, 6, 4, 4]
    assert lookup_form.digit_bits(2, 1, 100) == 1  # 2·(1 + 100/63); of 2 bits 1 + 100/21
    assert lookup_form.digit_bits(4, 65535 // 15, 3) == 4
    assert lookup_form.digit_bits(4, 65535 // 15 + 1, 3) == 2
    assert lookup_form.digit_bits(8, 65535, 3) == 1
    assert lookup_form.digit_bits(1, 65536, 3) is None


@pytest.mark.parametrize("target", [TARGET, "rpi5", "rpi4b"])
def test_no_look_ups_of_images(target):
    part = ContractPart("x", np.ones((64, 4, 3, 3), np.int64), grids.bipolar(), (1, 1), (1, 1, 1, 1))
    assert "lookup" not in dict(candidates(part, grids.unsigned(2), load_target(target), (8, 8)))


@pytest.mark.parametrize(
    "outputs, offered", [(64, True), (20, True), (48, False), (16, False), (96, False), (192, True)]
)
def test_where_it_is_offered(outputs, offered):
    part = ContractPart("x", np.ones((outputs, 64, 3, 3), np.int64), grids.bipolar(), (1, 1), (1, 1, 1, 1))
    costs = dict(candidates(part, grids.unsigned(2), load_target(TARGET), (8, 8)))
    assert ("lookup" in costs) == offered
    assert "lookup" not in dict(candidates(part, grids.unsigned(2), load_target("zen4"), (8, 8)))
