"""What families define for every architecture, without its schedule: each sum, exactly as the reference has it.

A definition that is not scheduled needs none of an architecture's instructions: ARM's forms and those of AVX-512 are
compiled for this CPU, whichever it is. Activations end at a page that nobody may read; no index leaves what is computed,
and every stage has the name by which schedules find it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import tvm

from mpcompile.compiler.backend import tvm_dict
from mpcompile.compiler.library import compiled
from mpcompile.ir import formats
from mpcompile.ir.graph import Graph, Quantizer, TensorType
from mpcompile.ir.grid import Grid, bipolar, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer, Load, Output
from mpcompile.kernels import accumulators
from mpcompile.kernels.build import build
from mpcompile.kernels.describe import describe
from mpcompile.kernels.families import family as family_of
from mpcompile.kernels.families import popcount_bytes, winograd
from mpcompile.kernels.spec import PartSpec
from mpcompile.kernels.tvm_names import buffer_of
from mpcompile.reference.run import run
from mpcompile.schedules import architecture_of
from mpcompile.targets import load_target
from tests.kernels.bounds import computed, reads_beyond
from tests.kernels.guarded import guarded
from tests.kernels.harness import stored
from tests.kernels.test_contract import codes, convolution


class Shape(NamedTuple):
    channels: int
    size: tuple[int, int]
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    halo: tuple[int, int, int, int] | None = None
    """Where another reader wants more of it than `pads`."""
    groups: int = 1


UNEVEN = Shape(37, (8, 7), 21, (3, 2), (2, 1), (1, 2), (1, 2, 0, 1), (2, 5, 3, 1))
"""Nothing is a whole vector, and no axis like the other."""


def defined(family: str, target: str, shape: Shape, grid_w: Grid, grid_a: Grid, q=None, x=None) -> PartSpec:
    """The part's spec, once its sums, stored in float32, have been found to be the reference's. `q`, `x`: weights and
    activations, where they are not drawn."""
    rng = np.random.default_rng(0)
    channels, (height, width), outputs, kernel, strides, dilations, pads, halo, groups = shape
    q = codes(rng, grid_w, (outputs, channels // groups, *kernel)) if q is None else q
    x = codes(rng, grid_a, (channels, height, width)) if x is None else x
    part = ContractPart("x", q, grid_w, strides, pads, dilations, groups)
    h = (height + pads[0] + pads[2] - dilations[0] * (kernel[0] - 1) - 1) // strides[0] + 1
    w = (width + pads[1] + pads[3] - dilations[1] * (kernel[1] - 1) - 1) // strides[1] + 1
    layer = Layer("sums", ["x"], ["y"], (outputs, h, w), [ContractTerm([part])], [Load(0)], [Output("y", 0)])
    types = {"x": TensorType(x.shape, Quantizer(grid_a, 1.0)), "y": TensorType((outputs, h, w))}
    expected = run(Graph([layer], types, ["x"], ["y"]), {"x": x})["y"]
    assert abs(expected).max() < 1 << 24  # float32 holds them

    record = family_of(family)
    form = record.reads + ("+sums" if record.sums(part) else "")
    architecture = architecture_of(load_target(target))
    found = describe(
        layer,
        {"x": stored("x", x.shape, grid_a, (form,), halo or pads)},
        {"y": stored("y", (outputs, h, w), None)},
        {(0, 0): family},
        architecture,
    )
    function, stages = build(found.spec, architecture.kind)
    assert not reads_beyond(function)
    named = {name for name in vars(stages.parts[0]).values() if isinstance(name, str)} - {""}
    others = {"value", *stages.windows, *stages.accumulators, *(s.name for s in stages.stored)}
    assert computed(function) == named | others  # a stage without a name would never be scheduled
    parameters = [buffer_of(function, i) for i in range(len(function.params))]
    inputs = [formats.encode(x, b) for b in found.inputs]
    inputs = [a.view(str(p.dtype)).reshape([int(n) for n in p.shape]) for a, p in zip(inputs, parameters)]
    arrays = [*inputs, *found.constants, np.full_like(expected, np.nan)]
    arrays = [tvm.runtime.from_dlpack(guarded(a)) for a in arrays]
    compiled({"main": function}, tvm_dict(load_target("native"), 1) | {"opt-level": 0})["main"](*arrays)
    np.testing.assert_array_equal(arrays[-1].numpy(), expected)
    return found.spec.parts[0]


# -- popcount ----------------------------------------------------------------------------------------------------------
COUNTING = ("zen5", "x86-64-v2", "x86-64-v3", "x86-64-v4", "rpi5", "rpi4b-32")
"""Words; nibbles in vectors of three widths; bytes by a micro-kernel, and pairs of them in 16 bits."""


@pytest.mark.parametrize("target", COUNTING)
@pytest.mark.parametrize(
    "grid_w, grid_a",
    [
        (twos_complement(3), twos_complement(2)),
        (odd(2), unsigned(2, 1)),
        (Grid((6, -3, 1, 2), 0, -3, 9), unsigned(1)),  # 3 and 6 are no shifts
        (Grid((-3, 1, 2), 0, -3, 3), twos_complement(2)),
    ],
    ids=str,
)
def test_popcount(target, grid_w, grid_a):
    defined("popcount", target, UNEVEN, grid_w, grid_a)


def test_popcount_of_more_pairs_than_are_merged():
    """3·6 pairs, of both signs, −1 too, each in its accumulator."""
    spec = defined("popcount", "zen5", UNEVEN, Grid((3, -1, 2), 0, -1, 5), twos_complement(6))
    assert spec.weight_shape[-2:] == (3, 16)


@pytest.mark.parametrize("target", COUNTING)
def test_popcount_of_groups_and_of_deep_rows(target):
    shape = Shape(150, (2, 3), 33, groups=3)
    defined("popcount", target, shape, twos_complement(2), unsigned(2))


@pytest.mark.parametrize(
    "target, channels, rows", [("x86-64-v3", 1024, 1), ("x86-64-v3", 512, 3), ("rpi4b-32", 32, 1), ("rpi4b-32", 512, 1)]
)
def test_popcount_where_all_bits_are_set(target, channels, rows):
    """64 steps of nibbles are one more than 8 bits hold, as are 16 of pairs of bytes, which 16 bits take."""
    shape = Shape(channels, (rows, 2), 8, (rows, 1))
    ones = np.ones((8, channels, rows, 1), np.int64)
    defined("popcount", target, shape, unsigned(1), unsigned(1), ones, np.ones((channels, rows, 2), np.int64))


@pytest.mark.parametrize("kernel, inner", [((4, 5), (1, 5, 10)), ((5, 4), (5, 1, 10))])
def test_popcount_of_bytes_that_are_widened_after_half_of_a_row_of_taps(kernel, inner):
    """Of 20 steps: two parts of each tap, and one tap of four."""
    assert popcount_bytes.chunk(*kernel, 20, 63) == inner
    spec = defined("popcount", "x86-64-v3", Shape(320, kernel, 16, kernel), bipolar(), unsigned(1))
    assert spec.weight_shape == (2, 1, *kernel, 20, 8, 4)


@pytest.mark.parametrize("planes", [(-1, 2), (2, -1)], ids=str)
def test_popcount_of_bytes_that_count_minus_one(planes):
    """First and later, on a map that has fewer columns than planes."""
    defined("popcount", "x86-64-v3", Shape(37, (3, 1), 21), Grid(planes, 0, -1, 2), twos_complement(2))


# -- dot ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "target, grid_w, grid_a",
    [
        ("zen5", odd(8), unsigned(8)),  # VPDPBUSD
        ("x86-64-v2", twos_complement(4), twos_complement(4)),  # PMADDUBSW, summed in 16 bits
        ("x86-64-v3", twos_complement(4), unsigned(6)),
        ("x86-64-v4", twos_complement(8), unsigned(7)),  # PMADDUBSW
        ("x86-64-v3", odd(8), odd(8)),  # PMADDWD, which takes int16
        ("rpi5", twos_complement(8), unsigned(7)),  # SDOT
        ("rpi5", odd(8), twos_complement(8)),  # levels less 128
        ("rpi4b", twos_complement(4), unsigned(8, 7)),
        ("rpi3b", twos_complement(2), odd(3)),
        ("rpi4b-32", twos_complement(8), unsigned(8)),
    ],
    ids=str,
)
def test_dot(target, grid_w, grid_a):
    defined("dot", target, UNEVEN, grid_w, grid_a)


@pytest.mark.parametrize("target", ["zen5", "x86-64-v3", "rpi5", "rpi4b", "rpi4b-32"])
@pytest.mark.parametrize("grid_w", [twos_complement(4), sign_magnitude(8)], ids=str)
@pytest.mark.parametrize("channels, outputs, kept", [(24, 96, 3), (24, 24, 1), (15, 48, 1)])
def test_dot_of_groups(target, grid_w, channels, outputs, kept):
    """Those that fill vectors stay; weights of nine bits stay whole."""
    shape = UNEVEN._replace(channels=channels, outputs=outputs, groups=3)
    assert defined("dot", target, shape, grid_w, unsigned(8)).groups == kept


def test_dot_of_two_groups():
    shape = UNEVEN._replace(channels=16, outputs=64, groups=2)
    assert defined("dot", "x86-64-v3", shape, twos_complement(4), unsigned(8)).groups == 2


@pytest.mark.parametrize("target", ["zen5", "x86-64-v3", "rpi5", "rpi4b"])
@pytest.mark.parametrize("channels", [1, 3])
def test_dot_of_images(target, channels):
    defined("dot", target, UNEVEN._replace(channels=channels, outputs=16), twos_complement(8), unsigned(8))


@pytest.mark.parametrize("channels, rows, columns", [(64, 1, 1), (16, 2, 3), (16, 3, 1)])
def test_dot_where_all_products_are_the_greatest(channels, rows, columns):
    """16 bits hold 8 of 15·(−128)·2."""
    shape, size = Shape(channels, (rows, columns), 8, (rows, columns)), (channels, rows, columns)
    q = np.full((8, *size), -128)
    spec = defined("dot", "x86-64-v3", shape, twos_complement(8), unsigned(4), q, np.full(size, 15))
    assert spec.instr.most == 8


@pytest.mark.parametrize("channels, steps, inner", [(4, 1, (3, 2, 1)), (8, 2, (1, 2, 2)), (64, 16, (1, 1, 8))], ids=str)
def test_dot_of_kernels_rows_and_parts_of_taps(channels, steps, inner):
    """16 bits hold 8 sums, of the kernel's 6, 12 and 96."""
    spec = defined("dot", "x86-64-v3", Shape(channels, (4, 5), 32, (3, 2)), twos_complement(8), unsigned(4))
    assert spec.weight_shape[3] == steps and accumulators.chunk(3, 2, steps, spec.instr.most) == inner


TILED = Shape(18, (5, 7), 20, (3, 3), pads=(1, 1, 1, 1))


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    "target, shape",
    [
        ("x86-64-v3", TILED),
        ("x86-64-v2", TILED._replace(size=(6, 4), pads=(0, 1, 2, 1))),
        ("x86-64-v4", TILED._replace(size=(4, 5), halo=(2, 3, 1, 2))),
        ("x86-64-v3", TILED._replace(size=(10, 6))),
        ("x86-64-v3", TILED._replace(size=(7, 6), pads=(0, 0, 0, 0))),
        # not a byte between the last pixel and the page
        ("x86-64-v3", TILED._replace(channels=16, size=(6, 5))),
        ("x86-64-v3", TILED._replace(channels=16, size=(5, 9), halo=(1, 2, 1, 1))),
        ("x86-64-v3", TILED._replace(channels=16, size=(5, 5), halo=(2, 1, 1, 1))),
    ],
)
def test_winograd(target, shape, stored, monkeypatch):
    """Last tiles leave the map, which ends where the buffer does."""
    monkeypatch.setattr(winograd, "MOST_STORED", winograd.MOST_STORED if stored else 0)
    spec = defined("winograd", target, shape, odd(8), unsigned(8))
    assert isinstance(spec, winograd.WinogradSpec) and spec.weight_dtype == ("int16" if stored else "int8")


# -- lookup ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("target", ["x86-64-v3", "rpi5", "rpi4b"])
@pytest.mark.parametrize(
    "grid_w, grid_a", [(odd(2), unsigned(2)), (twos_complement(3), twos_complement(4)), (bipolar(), odd(8))], ids=str
)
def test_lookup(target, grid_w, grid_a):
    """Of one digit and of two, weighted 2^4."""
    defined("lookup", target, UNEVEN, grid_w, grid_a)
    defined("lookup", target, UNEVEN._replace(outputs=64, channels=16), grid_w, grid_a)


@pytest.mark.parametrize("channels, rows, columns", [(80, 1, 1), (32, 2, 3), (16, 3, 2)])
def test_lookup_where_all_entries_are_the_greatest(channels, rows, columns):
    """8 bits hold 4 sums of four activations of 15."""
    shape, size = Shape(channels, (rows, columns), 32, (rows, columns)), (channels, rows, columns)
    q, x = np.ones((32, *size), np.int64), np.full(size, 15)
    assert defined("lookup", "x86-64-v3", shape, unsigned(1), unsigned(4), q, x).lookup.most == 4


@pytest.mark.parametrize("bits, inner", [(1, (3, 2, 8)), (2, (1, 2, 8)), (4, (1, 1, 4))])
def test_lookup_of_kernels_rows_and_parts_of_taps(bits, inner):
    """8 bits hold 63, 21 and 4 sums, of the kernel's 48."""
    spec = defined("lookup", "x86-64-v3", Shape(32, (4, 5), 32, (3, 2)), twos_complement(2), unsigned(bits))
    assert accumulators.chunk(3, 2, 8, spec.lookup.most) == inner


def test_lookup_of_a_plane_that_weighs_as_much_as_the_second_digit():
    defined("lookup", "x86-64-v3", Shape(16, (2, 2), 32), Grid((16,), 0, 0, 16, 16), unsigned(8))


# -- depthwise ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channels", [3, 16, 21])
def test_depthwise(channels):
    shape = UNEVEN._replace(channels=channels, outputs=channels, groups=channels)
    defined("depthwise", "native", shape, sign_magnitude(8), unsigned(8, 3))


def test_depthwise_where_planes_are_wider_than_codes():
    """96 channels are computed of 80."""
    size, grid = (66, 5, 4, 66, (3, 3), (1, 1), (1, 1, 1, 1)), unsigned(2)
    layer, types, _ = convolution(np.random.default_rng(0), *size, twos_complement(8), grid, grid, groups=66)
    x, y = (
        stored(name, types[name].shape, grid, (form,), (1, 1, 1, 1)) for name, form in (("x", "codes"), ("y", "planes"))
    )
    architecture = architecture_of(load_target("native"))
    found = describe(layer, {"x": x}, {"y": y}, {(0, 0): "depthwise"}, architecture)
    assert found.spec.padded == 96 and found.spec.parts[0].weight_shape == (3, 3, 80)
    assert not reads_beyond(build(found.spec, architecture.kind)[0])
