"""Dot products by Winograd's tiles where a CPU multiplies 16 bits: every byte against the reference, extremes too."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.accumulators import INT32
from mpcompile.kernels.describe import describe
from mpcompile.kernels.families import winograd_form
from mpcompile.kernels.families.dot import WinogradSpec
from mpcompile.kernels.spec import LayerSpec
from mpcompile.records.key import distance, layer_key
from mpcompile.schedules import architecture_of
from mpcompile.schedules.tile import Tile
from mpcompile.targets import load_target
from tests.kernels.harness import LEVELS, stored
from tests.kernels.test_contract import convolution, run

EIGHT = grids.twos_complement(8)


def case(
    channels,
    height,
    width,
    outputs,
    pads=(1, 1, 1, 1),
    grid_w=EIGHT,
    grid_a=grids.unsigned(8),
    kernel=(3, 3),
    stride=(1, 1),
    groups=1,
):
    return convolution(
        np.random.default_rng(channels + height),
        channels,
        height,
        width,
        outputs,
        kernel,
        stride,
        pads,
        grid_w,
        grid_a,
        grids.unsigned(8),
        groups=groups,
    )


def described(found, target="x86-64-v3", out_forms=("codes",)) -> LayerSpec:
    layer, types, _ = found
    part, x, y = layer.terms[0].parts[0], types["x"], types["y"]
    forms = stored("x", x.shape, x.grid, ("codes+sums",), part.pads), stored("y", y.shape, y.grid, out_forms)
    return describe(layer, {"x": forms[0]}, {"y": forms[1]}, {(0, 0): "dot"}, architecture_of(load_target(target))).spec


def by_tiles(found, target="x86-64-v3") -> bool:
    return isinstance(described(found, target).parts[0], WinogradSpec)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize(
    "channels, height, width, outputs, pads",
    [
        (64, 8, 8, 64, (1, 1, 1, 1)),
        (20, 9, 12, 16, (1, 1, 1, 1)),
        (32, 7, 7, 40, (1, 1, 1, 1)),
        (16, 6, 7, 130, (0, 0, 0, 0)),
        (24, 5, 8, 32, (2, 0, 1, 3)),
    ],
)
def test_shapes(target, channels, height, width, outputs, pads):
    found = case(channels, height, width, outputs, pads)
    assert by_tiles(found, target)
    run(found, "dot", target)


def test_a_halo_that_is_larger_than_the_paddings():
    run(case(20, 7, 8, 32), "dot", "x86-64-v3", in_halo=(2, 4, 3, 1))


@pytest.mark.parametrize(
    "grid_w, grid_a",
    [
        (grids.odd(8), grids.unsigned(8)),
        (grids.unsigned(8), grids.unsigned(8, 7)),
        (EIGHT, grids.odd(8)),
        (EIGHT, grids.twos_complement(8)),
    ],
    ids=str,
)
def test_grids_with_offsets_and_borders(grid_w, grid_a):
    found = case(18, 6, 9, 24, grid_w=grid_w, grid_a=grid_a)
    assert by_tiles(found)
    run(found, "dot", "x86-64-v3")


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_codes(target, sign):
    """The largest and least weights that all add up, and those whose differences do."""
    found = case(200, 6, 6, 16)
    q, x = found[0].terms[0].parts[0].q, found[2]["x"]
    q[:], x[:] = 127 if sign > 0 else -128, 255
    q[::2] = np.where(np.indices((3, 3)).sum(0) % 2 == (sign > 0), 127, -128)
    x[:, ::2, 1::2] = 0
    assert by_tiles(found, target)
    run(found, "dot", target)


def test_what_int32_might_not_hold_is_multiplied_directly():
    w8 = np.full((1, 512, 3, 3), -128)
    assert not winograd_form.fits(w8, 255) and winograd_form.fits(w8[:, :400], 255)
    found = case(512, 4, 4, 16)
    found[0].terms[0].parts[0].q[:] = -128
    assert not by_tiles(found)
    run(found, "dot", "x86-64-v3")


def test_bounds_hold_for_every_input():
    """No partial sum of tiles chosen to be as large as they can leaves the bounds that `fits` adds up."""
    rng = np.random.default_rng(0)
    bt = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
    at = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
    w8 = rng.choice([-128, 127], (8, 30, 3, 3))
    u = winograd_form.transform(w8)[:, :, 0].reshape(8, 30, 4, 4)
    levels = np.where(rng.random((50, 30, 4, 4)) < 0.5, 0, 255)
    levels[0], levels[1] = 255, np.where(np.outer([1, 0, 0, 1], [1, 1, 0, 0]), 255, 0)
    v = np.einsum("ia,jb,tcab->tcij", bt, bt, levels)
    assert abs(v[..., 1, 1]).max() <= 4 * 255 and np.delete(abs(v).reshape(50, 30, 16), 5, -1).max() <= 2 * 255
    m = np.einsum("tcij,ocij->toij", v, u)
    y = np.einsum("pi,qj,toij->topq", at, at, m)
    windows = np.lib.stride_tricks.sliding_window_view(levels, (3, 3), (2, 3))
    np.testing.assert_array_equal(y, 4 * np.einsum("tcpqab,ocab->topq", windows, w8))
    assert abs(m).sum((2, 3)).max() <= INT32


@pytest.mark.parametrize(
    "change",
    [
        dict(kernel=(3, 5), pads=(1, 2, 1, 2)),
        dict(stride=(2, 2)),
        dict(groups=2),
        dict(width=3),
        dict(outputs=12),
        dict(grid_w=grids.twos_complement(4)),
    ],
    ids=str,
)
def test_what_is_left_alone(change):
    found = case(**dict(channels=32, height=8, width=8, outputs=32) | change)
    assert not by_tiles(found)


def test_targets_with_vnni_multiply_bytes():
    assert not by_tiles(case(32, 8, 8, 32), "zen4")


def test_records_tell_tiles_from_direct_products_and_what_is_written_apart():
    small, direct = case(512, 4, 4, 16), case(512, 4, 4, 16)
    small[0].terms[0].parts[0].q[:] = small[0].terms[0].parts[0].q[4:5]
    direct[0].terms[0].parts[0].q[:] = -128  # its tiles' sums might leave int32
    tiles = layer_key(described(small))
    assert distance(tiles, layer_key(described(direct))) is None
    assert distance(tiles, layer_key(described(small, out_forms=("planes", "codes")))) > 0


@pytest.mark.parametrize("lines", [2, 4, 8])
def test_lines_change_no_byte(lines):
    run(case(32, 8, 8, 96), "dot", "x86-64-v3", out_forms=("codes",), tile=Tile(8, 4, 8, lines=lines))


def test_cost_counts_the_products_that_are_left():
    from mpcompile.kernels.select import candidates

    target = load_target("x86-64-v3")
    cost = lambda **more: dict(
        candidates(
            ContractPart("x", np.ones((64, 64, 3, 3), np.int64), EIGHT, **more), grids.unsigned(8), target, (8, 8)
        )
    )["dot"]
    assert 1.8 < cost(dilations=(2, 2)) / cost() < 2.25
