"""A few whole layers on every ARM board, under QEMU."""

import pytest

from tests.kernels import test_contract as contract
from tests.kernels import test_layers as layers

pytestmark = pytest.mark.quick
BOARDS = ("rpi3b", "rpi4b", "rpi5", "rpi3b-32", "rpi4b-32", "aarch64", "aarch64-dotprod")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("family", ["popcount", "dot"])
def test_convolution(board, family):
    contract.test_bit_pair(2, 2, family, board)


@pytest.mark.parametrize("board", ("rpi3b", "rpi4b", "rpi5", "aarch64", "aarch64-dotprod"))
def test_lookup(board):
    contract.test_bit_pair(2, 2, "lookup", board)


@pytest.mark.parametrize("board", ("rpi4b", "rpi5", "rpi4b-32"))
def test_residual_block(board):
    layers.test_residual_block(board, ("dot", "popcount"))
