"""Micro-kernels of 64-bit ARM under QEMU: every kind, tile and unrolling, and sums at the limits of their lanes."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.schedules.arm_intrinsics import dot_instruction
from mpcompile.schedules.arm_microkernels import BYTES, TILES, Window, assembly, choose
from mpcompile.schedules.tile import Tile
from tests.kernels import test_contract as contract


def extreme(channels, outputs, kernel, grid_w, grid_a, size=5):
    """A convolution without padding of the weights and activations whose products are largest, of both signs."""
    case = contract.convolution(
        np.random.default_rng(0),
        channels,
        size,
        size,
        outputs,
        kernel,
        (1, 1),
        (0, 0, 0, 0),
        grid_w,
        grid_a,
        grids.unsigned(8),
    )
    q = case[0].terms[0].parts[0].q
    q[:] = grid_w.lo
    q[1::2] = grid_w.hi
    case[2]["x"][:] = grid_a.hi
    case[2]["x"][:, ::2] = grid_a.lo
    return case


@pytest.mark.parametrize(
    "w, a, kind, run",
    [
        (2, 2, "mla", 21),
        (2, 4, "mla", 4),
        (3, 3, "mla", 4),
        (4, 3, "mla", 2),
        (4, 4, "mla", 1),
        (4, 8, "smlal", 31),
        (6, 8, "smlal", 7),
        (8, 8, "smlal", 1),
    ],
)
def test_extreme_products(w, a, kind, run):
    """Every partial sum is as far from 0 as it can be; 512 channels fill the 16-bit lanes of mla several times."""
    grid_w, grid_a = grids.twos_complement(w), grids.unsigned(a)
    instr = dot_instruction("aarch64", False, grid_a.levels - 1, (grid_w.lo, grid_w.hi), 64, True)
    assert (instr.whole, instr.run) == (kind, run if kind == "smlal" else 127 // (-grid_w.lo * grid_a.hi))
    contract.run(extreme(512, 32, (3, 3), grid_w, grid_a, 4), "dot", "rpi3b")


def test_counts_that_fill_16_bits():
    """4095 steps of 32 channels are added before they are widened: a tap more makes a chunk of rows."""
    contract.run(extreme(15000, 16, (3, 3), grids.unsigned(1), grids.unsigned(1), 3), "popcount", "rpi3b", ("codes",))


@pytest.mark.parametrize(
    "board, family, w, a",
    [
        ("rpi3b", "popcount", 2, 2),
        ("rpi3b", "dot", 2, 2),
        ("rpi3b", "dot", 8, 8),
        ("rpi5", "dot", 8, 8),
        ("rpi5", "lookup", 2, 3),
        ("rpi4b", "lookup", 1, 4),
    ],
)
@pytest.mark.parametrize("pixels, block", [(1, 16), (1, 64), (3, 32), (6, 16), (4, 48), (12, 32)])
def test_tile(board, family, w, a, pixels, block):
    """Tiles that hold several micro-kernels' tiles; strides and dilations in both axes."""
    rng = np.random.default_rng(pixels)
    outputs = 96 if block == 48 else 64
    case = contract.convolution(
        rng,
        48,
        9,
        30,
        outputs,
        (3, 2),
        (2, 2),
        (1, 1, 1, 2),
        grids.twos_complement(w),
        grids.unsigned(a),
        grids.unsigned(4),
        (2, 3),
    )
    width = case[0].shape[2]
    pixels = max(n for n in range(1, pixels + 1) if width % n == 0)
    contract.run(case, family, board, ("codes",), tile=Tile(width, pixels, block))


@pytest.mark.parametrize("board", ["rpi3b", "rpi5"])
@pytest.mark.parametrize("channels", [3, 8, 20, 33, 96])
@pytest.mark.parametrize("family, w, a", [("popcount", 1, 2), ("dot", 2, 2), ("dot", 8, 8), ("lookup", 2, 4)])
def test_unrolling(board, channels, family, w, a):
    if family != "dot" and channels < 8:
        channels = 5
    case = contract.convolution(
        np.random.default_rng(channels),
        channels,
        6,
        8,
        16,
        (3, 3),
        (1, 1),
        (1, 1, 1, 1),
        contract.weight_grid(w, 1),
        grids.unsigned(a),
        grids.unsigned(4),
    )
    contract.run(case, family, board, ("codes",))


@pytest.mark.parametrize("kind", TILES)
def test_registers_suffice(kind):
    """Every tile and unrolling is assembled, with no load after its use."""
    for pixels, blocks in TILES[kind]:
        for steps in (2, 4, 6, 8, 16) if kind == "smlal" else (1, 2, 3, 4, 6, 8, 16):
            for run in (0,) if kind in ("popcount", "sdot", "tbl2") else (1, 2, 5, 100):
                micro = choose(kind, pixels, blocks, steps, run)
                assert (micro.pixels, micro.blocks) == (pixels, blocks)
                code = assembly(micro, Window((3, 3), steps * BYTES[kind], 1, (1, 1), 1 << 20))
                assert code.count("cbnz x7, .Lmp_loop${:uid}") == 1
