"""Lines that no register tile divides: the last tile overlaps the one before, and no byte differs."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.formats import Buffer
from mpcompile.kernels.spec import LayerSpec, OutputSpec
from mpcompile.schedules.tile import Tile, evened, pixels_of, row_of
from tests.kernels.harness import LEVELS
from tests.kernels.test_contract import convolution, run


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("family", ["popcount", "dot"])
@pytest.mark.parametrize("width, kernel", [(197, 1), (34, 1), (59, 3)])
def test_no_byte_differs(target, family, width, kernel):
    """Nor is anything read or written outside of the buffers, which end where memory does."""
    bits = 2 if family == "popcount" else 8
    grid, out = grids.unsigned(bits), grids.unsigned(8, 3)
    rng = np.random.default_rng(width)
    pads = (0, kernel // 2, 0, kernel // 2)
    case = convolution(rng, 48, 1, width, 40, (1, kernel), (1, 1), pads, grids.twos_complement(bits), grid, out)
    lowered = run(case, family, target, out_forms=("codes",))
    tile = lowered.tile
    assert width % tile["row"] and tile["pixels"] > 2, tile


@pytest.mark.parametrize("target", LEVELS[1:2])
def test_a_given_tile(target):
    case = convolution(
        np.random.default_rng(0), 16, 1, 23, 64, (1, 1), (1, 1), (0, 0, 0, 0),
        grids.twos_complement(8), grids.unsigned(8), grids.unsigned(8),
    )  # fmt: skip
    run(case, "dot", target, out_forms=("codes",), tile=Tile(6, 6, 16))


def spec(width: int, form: str = "codes", height: int = 1) -> LayerSpec:
    buffer = Buffer("y", form, (16, height, width), grids.unsigned(8))
    return LayerSpec((16, height, width), (), (), (OutputSpec(0, (buffer,)),), 0, 0)


def test_where_tiles_overlap():
    assert pixels_of(spec(197), 8) == [1, 4, 5, 6, 7, 8]
    assert pixels_of(spec(196), 8) == [1, 2, 4, 7]
    assert pixels_of(spec(17), 8) == [1]  # a fifth of it would be computed twice
    assert pixels_of(spec(197, "planes"), 8) == pixels_of(spec(197, height=2), 8) == [1]
    assert row_of(197, 6) == 6 and row_of(196, 7, 16) == 14
    wide = evened(spec(197), Tile(6, 6, 16))
    assert wide.shape == (16, 1, 198) and wide.outputs[0].buffers[0].shape == (16, 1, 198)
    assert evened(spec(196), Tile(14, 7, 16)) == spec(196)
