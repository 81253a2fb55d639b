"""Look-ups under QEMU: bit pairs, digits, shapes, extreme codes, shared lines; every byte against the reference."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.select import candidates
from mpcompile.schedules.arm_lookup import lookup
from mpcompile.schedules.tile import Tile
from mpcompile.targets import load_target
from tests.kernels import test_layers as layers
from tests.kernels.test_contract import SHAPES, activation_grid, convolution, run, weight_grid

BOARDS = ("rpi4b", "rpi5")
"""Each has other steps; the A53 has the A76's."""

PAIRS = [*((w, a) for w in range(1, 5) for a in range(1, 5)), (1, 5), (1, 6), (2, 7), (1, 8), (8, 8)]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("w, a", PAIRS)
def test_bit_pair(board, w, a):
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
    run(case, "lookup", board)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape(board, shape):
    """Channels are no multiple of 4, outputs none of 16; strides, dilations, kernels without padding."""
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
        board,
    )


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    "channels, bits, kernel",
    [
        (512, 4, 3),  # 546 steps of two tables of 60 fit 16 bits, 576 are there
        (1024, 6, 1),
        (1056, 6, 1),  # 130 steps of 252, where 128 and 132 are there
        (48, 6, 5),
        (352, 5, 3),  # two entries of 124 fit 8 bits
        (8192, 2, 1),
        (512, 8, 3),
    ],
)
def test_extreme_codes(board, channels, bits, kernel):
    """All bits set: sums fill 8 and 16 bits, and are widened where one more would not fit."""
    case = convolution(
        np.random.default_rng(0),
        channels,
        kernel,
        kernel,
        32,
        (kernel, kernel),
        (1, 1),
        (0, 0, 0, 0),
        grids.unsigned(1),
        grids.unsigned(bits),
        grids.unsigned(4),
    )
    case[0].terms[0].parts[0].q[:], case[2]["x"][:] = 1, (1 << bits) - 1
    run(case, "lookup", board, ("codes",))


def test_sums_fit():
    """Entries of a run in 8 bits, steps in 16."""
    for level_bits in range(1, 9):
        for tables in (1, 2):
            form = lookup(level_bits, tables)
            entry = 4 * ((1 << form.bits) - 1)
            assert form.digits * form.bits >= level_bits and entry <= 255
            assert form.most * tables * entry <= 65535 and form.run * entry <= 255
            assert form.run == (0 if tables == 2 else 255 // entry)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("lines, parallel", [(1, "rows"), (2, "lines"), (3, ""), (6, "groups")])
def test_lines_share_tables(board, lines, parallel):
    case = convolution(
        np.random.default_rng(lines),
        40,
        13,
        9,
        128,
        (3, 3),
        (2, 1),
        (1, 1, 0, 1),
        grids.bipolar(),
        grids.unsigned(4),
        grids.unsigned(2),
    )
    assert case[0].shape == (128, 6, 9)
    run(case, "lookup", board, ("planes",), tile=Tile(9, 3, 32, lines, parallel=parallel))


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("families", [("lookup", "lookup"), ("lookup", "dot"), ("popcount", "lookup")])
def test_residual_block(board, families):
    """Two contractions in one layer, each with tables of its own or by another family."""
    layers.test_residual_block(board, families)


@pytest.mark.parametrize("outputs, offered", [(64, True), (20, True), (48, True), (5, True), (4, False)])
def test_where_it_is_offered(outputs, offered):
    """Vectors are of 16 channels, and any number of products can be summed."""
    part = ContractPart("x", np.ones((outputs, 8192, 3, 3), np.int64), grids.bipolar(), (1, 1), (1, 1, 1, 1))
    assert ("lookup" in dict(candidates(part, grids.unsigned(4), load_target("rpi5"), (8, 8)))) == offered
    assert "lookup" not in dict(candidates(part, grids.unsigned(4), load_target("rpi4b-32"), (8, 8)))
