"""Every point of a layer's space of schedules writes the same bytes: random points on odd shapes, against the reference."""

import random
from dataclasses import replace

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.kernels.architecture import Space
from mpcompile.kernels.layer import lower
from mpcompile.schedules import architecture_of
from mpcompile.targets import load_target
from tests.kernels.harness import can_run, check, stored
from tests.kernels.test_contract import convolution

CASES = {
    # family, channels, height, width, outputs, kernel, stride, pads, groups
    "3x3": ("popcount", 65, 6, 8, 70, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    "1x1": ("popcount", 130, 8, 6, 40, (1, 1), (2, 1), (0, 0, 0, 0), 1),
    "groups of outputs": ("popcount", 20, 4, 4, 256, (3, 1), (1, 1), (1, 0, 1, 0), 1),
    "dot": ("dot", 21, 6, 6, 70, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    "dot 1x1": ("dot", 40, 4, 7, 256, (1, 1), (1, 1), (0, 0, 0, 0), 1),
    "winograd": ("winograd", 21, 8, 6, 70, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    "depthwise": ("depthwise", 40, 6, 8, 40, (3, 3), (1, 1), (1, 1, 1, 1), 40),
}
LARGER = {
    "winograd of many lines": ("winograd", 32, 24, 24, 48, (3, 3), (1, 1), (1, 1, 1, 1), 1),
    "an image, 7x7": ("dot", 3, 9, 12, 24, (7, 7), (2, 2), (3, 3, 3, 3), 1),
    "an image, 3x3": ("dot", 3, 9, 12, 24, (3, 3), (2, 2), (1, 1, 1, 1), 1),
}
POINTS = 3


def case_of(name: str):
    """The layer, what it reads and what it writes."""
    family, channels, height, width, outputs, kernel, stride, pads, groups = (CASES | LARGER)[name]
    rng = np.random.default_rng(0)
    layer, types, values = convolution(
        rng,
        channels,
        height,
        width,
        outputs,
        kernel,
        stride,
        pads,
        grids.unsigned(2, 1),
        grids.unsigned(2, 1),
        grids.unsigned(2),
        groups=groups,
    )
    form = ("planes" if family == "popcount" else "codes") + "+sums" * (family == "popcount")
    x, y = types["x"], types["y"]
    inputs = {"x": stored("x", x.shape, x.grid, (form,), pads)}
    forms = ("planes+sums",) if name == "3x3" else ("planes", "codes")
    return layer, types, values, {(0, 0): family}, inputs, {"y": stored("y", y.shape, y.grid, forms, (1, 1, 1, 1))}


def space_of(name: str, target: str, threads: int = 2) -> tuple[Space, object]:
    layer, _, _, families, inputs, outputs = case_of(name)
    lowered = lower(layer, inputs, outputs, families, architecture_of(load_target(target)))
    return lowered.architecture.space(lowered.spec, threads), lowered


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4-vnni-vpopcntdq"])
def test_random_points_write_the_same_bytes(name, target):
    if not can_run(target):
        pytest.skip(f"this CPU lacks instructions of {target}")
    space, _ = space_of(name, target)
    layer, types, values, families, inputs, outputs = case_of(name)
    tiles = space.tiles()
    rng = random.Random(f"{name} {target}")
    drawn = rng.sample(tiles, min(POINTS, len(tiles)))
    drawn[-1] = max(tiles, key=lambda t: (t.lines, t.unroll, t.words_first, t.apart, t.parallel != "", rng.random()))
    for tile in drawn:
        check(layer, types, values, families, target, inputs, outputs, tile)


@pytest.mark.parametrize("name", CASES | LARGER)
def test_the_default_is_a_point_and_points_differ(name):
    space, lowered = space_of(name, "x86-64-v4-vnni-vpopcntdq", threads=1)
    tiles = space.tiles()
    default = lowered.architecture.default_tile(lowered.spec)
    assert default in tiles and space.holds(default) and len(set(tiles)) == len(tiles) > 10
    assert not space.holds(replace(default, row=default.row + 1)) and {t.parallel for t in tiles} == {default.parallel}


def test_lines_leave_threads_their_share():
    space, lowered = space_of("3x3", "x86-64-v4-vnni-vpopcntdq")
    height = lowered.spec.shape[1]
    assert {height // t.lines for t in space.tiles() if t.lines > 1} == set()  # 6 lines, 2 groups: too few
    space, _ = space_of("groups of outputs", "x86-64-v4-vnni-vpopcntdq")
    assert 4 in {t.lines for t in space.tiles()}  # 4 groups are enough


@pytest.mark.parametrize("name, loops", [("an image, 7x7", 2), ("an image, 3x3", 0), ("dot", 0)])
def test_a_row_of_taps_over_an_image_is_written_out(name, loops):
    _, lowered = space_of(name, "x86-64-v4-vnni-vpopcntdq")
    assert lowered.architecture.default_tile(lowered.spec).unroll == loops
