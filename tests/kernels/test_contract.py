"""Contractions of every bit pair on every x86 level: all pixels with the borders, codes at their extremes too."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.graph import Quantizer, TensorType
from mpcompile.ir.layer import ContractPart, ContractTerm, Fma, Layer, Load, Output, Round
from mpcompile.kernels.families import family as family_of
from tests.kernels.harness import LEVELS, check, stored

PAIRS = [(w, a) for w in range(1, 9) for a in range(1, 9)]
FAMILIES = ("popcount", "dot")


def weight_grid(bits: int, turn: int):
    """A different kind of weight grid from pair to pair."""
    kinds = [grids.odd, grids.twos_complement, lambda b: grids.unsigned(b, (1 << b) // 2)]
    return kinds[turn % 3](bits) if bits > 1 else [grids.bipolar(), grids.unsigned(1), grids.odd(1)][turn % 3]


def activation_grid(bits: int, turn: int):
    kinds = [grids.unsigned, lambda b: grids.unsigned(b, 1), grids.twos_complement, grids.odd]
    return kinds[turn % 4](bits)


def codes(rng, grid, shape):
    """Values of the grid; a corner of the tensor at the lowest, another at the highest."""
    q = grid.value(rng.integers(0, grid.levels, shape))
    q[: shape[0] // 4] = grid.lo
    q[-(shape[0] // 4) or shape[0] :] = grid.hi
    return q


def convolution(
    rng, channels, height, width, outputs, kernel, stride, pads, grid_w, grid_a, grid_out, dilation=(1, 1), groups=1
):
    """(layer, types, values) of one convolution requantized to `grid_out`, some channels with falling epilogues."""
    kh, kw = kernel
    q = codes(rng, grid_w, (outputs, channels // groups, kh, kw))
    top, left, bottom, right = pads
    h = (height + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    w = (width + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    part = ContractPart("x", q, grid_w, stride, pads, dilation, groups)
    spread = np.sqrt(channels // groups * kh * kw) * max(grid_a.max_abs, 1) * max(grid_w.max_abs, 1)
    a = (rng.normal(1, 0.3, outputs) * rng.choice([1, 1, 1, -1], outputs) * grid_out.levels / spread).astype(np.float32)
    b = rng.normal(grid_out.levels / 2, 1, outputs).astype(np.float32)
    layer = Layer(
        "conv",
        ["x"],
        ["y"],
        (outputs, h, w),
        [ContractTerm([part])],
        [Load(0), Fma(0, a, b), Round(1, "half_even", 0, grid_out.levels - 1)],
        [Output("y", 2, Quantizer(grid_out, 1.0))],
    )
    types = {
        "x": TensorType((channels, height, width), Quantizer(grid_a, 1.0)),
        "y": TensorType((outputs, h, w), Quantizer(grid_out, 1.0)),
    }
    return layer, types, {"x": codes(rng, grid_a, (channels, height, width))}


def run(case, family, target, out_forms=("planes+sums", "codes+sums"), out_halo=(1, 1, 1, 1), tile=None, in_halo=None):
    """`in_halo`: where another reader of the input wants more of it than this layer's paddings."""
    layer, types, values = case
    part = layer.terms[0].parts[0]
    form = "planes" if family == "popcount" else "codes"
    form += "+sums" if family_of(family).sums(part) else ""
    x, y = types["x"], types["y"]
    return check(
        layer,
        types,
        values,
        {(0, 0): family},
        target,
        {"x": stored("x", x.shape, x.grid, (form,), in_halo or part.pads)},
        {"y": stored("y", y.shape, y.grid, out_forms, out_halo)},
        tile,
    )


def bit_pairs() -> list[tuple[int, int, str, str]]:
    """(w, a, family, target): up to four bits every pair on every level; beyond, where kernels take longest to build,
    every pair by both families on one level each, so turned that each bitwidth and each kind of grid meets all levels."""
    found = []
    for w, a in PAIRS:
        for i, family in enumerate(FAMILIES):
            found += [
                (w, a, family, target)
                for k, target in enumerate(LEVELS)
                if max(w, a) <= 4 or k == (w + 2 * a + i) % len(LEVELS)
            ]
    return found


@pytest.mark.parametrize("w, a, family, target", bit_pairs())
def test_bit_pair(w, a, family, target):
    rng = np.random.default_rng(64 * w + a)
    grid_w, grid_a = weight_grid(w, w + a), activation_grid(a, w + 2 * a)
    out = activation_grid(a, w + a)
    run(convolution(rng, 13, 6, 7, 21, (3, 3), (1, 1), (1, 1, 1, 1), grid_w, grid_a, out), family, target)


SHAPES = [
    # channels, height, width, outputs, kernel, stride, pads (top, left, bottom, right), dilation
    (64, 8, 8, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (128, 7, 7, 192, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    (65, 9, 11, 70, (3, 5), (2, 1), (0, 2, 1, 1), (1, 1)),
    (16, 13, 13, 10, (7, 7), (2, 2), (3, 3, 3, 3), (1, 1)),
    (32, 12, 10, 32, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    (200, 1, 1, 1000, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (48, 1, 50, 33, (1, 9), (1, 2), (0, 4, 0, 4), (1, 1)),
    (96, 4, 4, 100, (4, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
    (112, 4, 6, 80, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
]


@pytest.mark.parametrize("target", (*LEVELS, "native"))
@pytest.mark.parametrize("family", ["popcount", "dot"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape(target, family, shape):
    channels, height, width, outputs, kernel, stride, pads, dilation = shape
    rng = np.random.default_rng(channels + outputs)
    case = convolution(
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
    )
    run(case, family, target)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("family", ["popcount", "dot"])
def test_a_halo_that_is_larger_than_the_paddings(target, family):
    rng = np.random.default_rng(5)
    run(
        convolution(
            rng, 40, 7, 6, 32, (3, 2), (1, 2), (1, 1, 0, 1), grids.odd(2), grids.unsigned(2, 1), grids.unsigned(3)
        ),
        family,
        target,
        in_halo=(2, 4, 3, 1),
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("groups, channels, outputs", [(2, 32, 64), (4, 32, 64), (3, 15, 12), (8, 64, 64)])
@pytest.mark.parametrize("grid_w", [grids.twos_complement(4), grids.unsigned(8, 3)], ids=str)
def test_groups(target, groups, channels, outputs, grid_w):
    rng = np.random.default_rng(groups)
    case = convolution(
        rng,
        channels,
        6,
        5,
        outputs,
        (3, 3),
        (1, 1),
        (1, 1, 1, 1),
        grid_w,
        grids.unsigned(5),
        grids.unsigned(4),
        groups=groups,
    )
    run(case, "dot", target)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("channels", [3, 16, 40, 96])
@pytest.mark.parametrize("grid_w", [grids.twos_complement(8), grids.bipolar(), grids.unsigned(8, 3)], ids=str)
def test_depthwise(target, channels, grid_w):
    rng = np.random.default_rng(channels)
    case = convolution(
        rng,
        channels,
        9,
        8,
        channels,
        (3, 3),
        (2, 2),
        (1, 1, 1, 1),
        grid_w,
        grids.unsigned(8, 5),
        grids.unsigned(8),
        groups=channels,
    )
    layer, types, values = case
    x, y = types["x"], types["y"]
    check(
        layer,
        types,
        values,
        {(0, 0): "depthwise"},
        target,
        {"x": stored("x", x.shape, x.grid, ("codes",), (1, 1, 1, 1))},
        {"y": stored("y", y.shape, y.grid, ("codes",))},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("channels", [66, 80])
def test_depthwise_where_planes_are_wider_than_codes(target, channels):
    """96 channels are computed, 80 have weights."""
    grid_w, grid_a, grid_out = grids.twos_complement(8), grids.unsigned(8, 5), grids.unsigned(2)
    rng, size = np.random.default_rng(channels), (channels, 5, 4, channels, (3, 3), (1, 1), (1, 1, 1, 1))
    case = convolution(rng, *size, grid_w, grid_a, grid_out, groups=channels)
    lowered = run(case, "depthwise", target, ("planes",))
    assert lowered.spec.padded == 96 and lowered.spec.parts[0].weight_shape == (3, 3, 80)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("family", ["popcount", "dot"])
def test_no_overflow_at_the_extremes(target, family):
    """K·255·128 fits int32, and every partial sum on the way."""
    rng = np.random.default_rng(0)
    layer, types, values = convolution(
        rng, 512, 5, 5, 16, (3, 3), (1, 1), (1, 1, 1, 1), grids.twos_complement(8), grids.unsigned(8), grids.unsigned(8)
    )
    layer.terms[0].parts[0].q[:] = -128
    layer.terms[0].parts[0].q[::2] = 127
    values["x"][:] = 255
    run((layer, types, values), family, target)
