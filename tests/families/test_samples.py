"""A family's sample stands for its layers when another layer is timed alone: it can compute the sample wherever it computes
anything."""

import numpy as np
import pytest

from mpcompile.ir.grid import twos_complement, unsigned
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.families import families
from mpcompile.targets import load_target
from mpcompile.targets.board import list_boards

CHANNELS, MAP = 64, (8, 8)


def layers() -> list[ContractPart]:
    """A dense and a depthwise convolution."""
    grid = twos_complement(2)
    shapes = ((CHANNELS, 1), (1, CHANNELS))  # channels of a group, groups
    return [ContractPart("x", np.ones((CHANNELS, c, 3, 3), np.int64), grid, groups=groups) for c, groups in shapes]


@pytest.mark.parametrize("board", list_boards())
def test_a_sample_can_be_computed_by_its_family(board):
    target, told = load_target(board), 0
    for family in families():
        if any(family.cycles(part, unsigned(2), target, MAP) is not None for part in layers()):
            sample = family.sample("x", CHANNELS, (1, 1, 1, 1))
            assert family.cycles(sample, unsigned(2), target, MAP) is not None, f"{family.name} on {board}"
            told += 1
    assert told >= 3
