"""The loop that threads share: it gives each as much to do, and changes no byte."""

import re

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.schedules.loops import EVEN, evenness
from mpcompile.schedules.tile import Tile
from tests.kernels.harness import can_run, check, stored
from tests.kernels.test_contract import convolution

TARGET = "x86-64-v3"


def checked(channels: int, height: int, width: int, outputs: int, tile: Tile | None = None):
    """A 3×3 layer that reads and writes planes and their sums, compared with the reference."""
    pads = (1, 1, 1, 1)
    layer, types, values = convolution(
        np.random.default_rng(0),
        channels,
        height,
        width,
        outputs,
        (3, 3),
        (1, 1),
        pads,
        grids.bipolar(),
        grids.unsigned(1),
        grids.unsigned(1),
    )
    x, y = types["x"], types["y"]
    return check(
        layer,
        types,
        values,
        {(0, 0): "popcount"},
        TARGET,
        {"x": stored("x", x.shape, x.grid, ("planes+sums",), pads)},
        {"y": stored("y", y.shape, y.grid, ("planes+sums",), pads)},
        tile,
    )


def shared(lowered) -> list[str]:
    """Loop variable and extent of each parallel loop but the halo's."""
    return re.findall(r"for (\w+) in T.parallel\((\d+)\)", lowered.func.script())


@pytest.mark.parametrize(
    "tile, height, expected",
    [
        (None, 8, ("y", "8")),
        (None, 7, ("g", "4")),  # 4 groups rather than 7 lines
        (Tile(7, 7, 16, lines=16), 16, ("g", "4")),
        (Tile(7, 7, 16, lines=2), 14, ("g", "4")),
        (Tile(7, 7, 16, parallel="rows"), 7, ("y_x_0_fused", "7")),
    ],
)
def test_threads_share_a_loop_of_even_parts(tile, height, expected):
    assert shared(checked(64, height, 7, 256, tile)) == [expected]


def test_one_group_of_many_lines_is_shared_by_fewer_lines():
    assert shared(checked(64, 28, 28, 64, Tile(14, 7, 16, lines=4))) == [("y_0", "14")]


def test_little_work_is_not_shared():
    assert shared(checked(16, 4, 4, 16)) == []


@pytest.mark.skipif(not can_run("x86-64-v4-vnni-vpopcntdq"), reason="this CPU multiplies no bytes in 512 bits")
def test_groups_of_tiles_in_bytes_share_what_is_transformed():
    """Levels are transformed once, before threads share the groups."""
    pads = (1, 1, 1, 1)
    found = convolution(
        np.random.default_rng(0),
        *(64, 28, 28, 128, (3, 3), (1, 1), pads),
        *(grids.twos_complement(4), grids.unsigned(4), grids.unsigned(4)),
    )
    layer, types, values = found
    x, y = types["x"], types["y"]
    forms = {"x": stored("x", x.shape, x.grid, ("codes",), pads)}, {"y": stored("y", y.shape, y.grid, ("codes",))}
    lowered = check(layer, types, values, {(0, 0): "winograd"}, "x86-64-v4-vnni-vpopcntdq", *forms)
    assert shared(lowered) == [("g", "2")]


def test_even_are_loops_that_few_threads_divide():
    assert [n for n in range(1, 17) if evenness(n) >= EVEN] == [4, 6, 8, 9, 10, 11, 12, 14, 15, 16]
