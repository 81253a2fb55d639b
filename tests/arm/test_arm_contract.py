"""The x86 tests of contractions, under QEMU: every bit pair that is worth a kernel, odd shapes, extreme codes."""

import pytest

from mpcompile.ir import grid as grids
from tests.kernels import test_contract as contract

PAIRS = [*((w, a) for w in range(1, 5) for a in range(1, 9)), (8, 8)]
BOARDS = ("rpi4b", "rpi5", "rpi4b-32")
"""Each has other instructions. The A53 differs from the A72 in the order of instructions and in tiles."""


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("family", ["popcount", "dot"])
@pytest.mark.parametrize("w, a", PAIRS)
def test_bit_pair(board, family, w, a):
    contract.test_bit_pair(w, a, family, board)


@pytest.mark.parametrize("board", (*BOARDS, "rpi3b"))
@pytest.mark.parametrize("family", ["popcount", "dot"])
@pytest.mark.parametrize("shape", contract.SHAPES, ids=str)
def test_shape(board, family, shape):
    contract.test_shape(board, family, shape)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("groups, channels, outputs", [(2, 32, 64), (4, 32, 64), (3, 15, 12)])
@pytest.mark.parametrize("grid_w", [grids.twos_complement(4), grids.unsigned(8, 3)], ids=str)
def test_groups(board, groups, channels, outputs, grid_w):
    contract.test_groups(board, groups, channels, outputs, grid_w)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("channels", [3, 40, 96])
@pytest.mark.parametrize("grid_w", [grids.twos_complement(8), grids.unsigned(8, 3)], ids=str)
def test_depthwise(board, channels, grid_w):
    contract.test_depthwise(board, channels, grid_w)


@pytest.mark.parametrize("board", (*BOARDS, "rpi3b"))
@pytest.mark.parametrize("family", ["popcount", "dot"])
def test_no_overflow_at_the_extremes(board, family):
    contract.test_no_overflow_at_the_extremes(board, family)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("channels, outputs", [(3, 32), (4, 10), (16, 4), (1, 3)])
def test_images_and_few_outputs(board, channels, outputs):
    """Four stored channels are fewer than a step of SDOT takes, and four outputs fewer than a block."""
    import numpy as np

    case = contract.convolution(
        np.random.default_rng(channels),
        channels,
        9,
        10,
        outputs,
        (3, 3),
        (2, 1),
        (1, 1, 0, 1),
        grids.twos_complement(8),
        grids.unsigned(8),
        grids.unsigned(3),
    )
    forms = ("codes",) if outputs <= 4 else ("planes+sums", "codes")
    contract.run(case, "dot", board, forms)
