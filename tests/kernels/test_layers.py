"""Whole layers: views, pools, residual adds, downsample terms, several outputs, every rounding; byte for byte."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.graph import ROUNDINGS, Along, Listed, Quantizer, TensorType
from mpcompile.ir.layer import (
    Clamp,
    ContractPart,
    ContractTerm,
    Divide,
    Fma,
    Layer,
    Load,
    LookUp,
    Output,
    Plus,
    PoolTerm,
    RearrangeTerm,
    Round,
    Slope,
    Times,
    Value,
    ViewTerm,
)
from mpcompile.ir.order import Order
from mpcompile.kernels.spec import IMAGE_CHANNELS
from tests.kernels.harness import LEVELS, check, stored

A4, A2 = grids.unsigned(4), grids.unsigned(2)
HALO = (1, 1, 1, 1)


def quantized(shape, grid):
    return TensorType(shape, Quantizer(grid, 1.0))


def f32(rng, n, scale=1.0):
    return rng.normal(0, scale, n).astype(np.float32)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("shape", [(3, 12, 17), (1, 8, 8), (20, 5, 6), (7, 1, 40), (33, 1, 1)], ids=str)
def test_quantize_a_plain_input(target, shape):
    rng = np.random.default_rng(0)
    grid = grids.twos_complement(8)
    layer = Layer(
        "in",
        ["x"],
        ["y"],
        shape,
        [ViewTerm("x")],
        [Load(0), Fma(0, np.float32([40.0]), np.float32([0.0])), Round(1, "half_even", -128, 127)],
        [Output("y", 2, Quantizer(grid, 1 / 40))],
    )
    x = rng.normal(0, 1.5, shape).astype(np.float32)
    forms = ("codes+sums",) if shape[0] <= 4 else ("codes+sums", "planes+sums")
    check(
        layer,
        {"x": TensorType(shape), "y": quantized(shape, grid)},
        {"x": x},
        {},
        target,
        {"x": stored("x", shape)},
        {"y": stored("y", shape, grid, forms, (3, 3, 2, 2))},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("form", ["codes", "planes", "float", "plain"])
@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize("channels", [16, 70])
def test_pool_every_format(target, form, kind, channels):
    rng = np.random.default_rng(channels)
    shape, out = (channels, 9, 8), (channels, 5, 4)
    real = form in ("float", "plain")
    grid = None if real else grids.twos_complement(4)
    layer = Layer(
        "pool",
        ["x"],
        ["y", "r"],
        out,
        [PoolTerm("x", kind, (3, 3), (2, 2), (1, 1, 1, 1))],
        [Load(0), Fma(0, np.float32([0.5]), np.float32([1.0])), Round(0, "half_even", -8, 7)],
        [Output("y", 2, Quantizer(grids.twos_complement(4), 1.0)), Output("r", 1)],
    )
    x = rng.normal(0, 4, shape).astype(np.float32) if real else grid.value(rng.integers(0, 16, shape))
    halo = (1, 1, 1, 1)
    types = {
        "x": TensorType(shape) if real else quantized(shape, grid),
        "y": quantized(out, grids.twos_complement(4)),
        "r": TensorType(out),
    }
    check(
        layer,
        types,
        {"x": x},
        {},
        target,
        {"x": stored("x", shape, grid, (form,), halo)},
        {
            "y": stored("y", out, grids.twos_complement(4), ("planes", "codes+sums"), halo),
            "r": stored("r", out, None, ("float", "plain")),
        },
    )


def test_global_average_pool_over_codes():
    rng = np.random.default_rng(1)
    shape, grid = (100, 7, 7), grids.unsigned(5)
    layer = Layer(
        "gap",
        ["x"],
        ["y"],
        (100, 1, 1),
        [PoolTerm("x", "sum", (7, 7), (1, 1))],
        [
            Load(0),
            Fma(0, np.float32([1 / 49]), np.float32([0])),
            Divide(1, np.float32([0.37])),
            Round(2, "half_even", 0, 31),
        ],
        [Output("y", 3, Quantizer(grid, 0.37))],
    )
    x = grid.value(rng.integers(0, 32, shape))
    check(
        layer,
        {"x": quantized(shape, grid), "y": quantized((100, 1, 1), grid)},
        {"x": x},
        {},
        "native",
        {"x": stored("x", shape, grid, ("planes",))},
        {"y": stored("y", (100, 1, 1), grid, ("codes", "planes"))},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("families", [("popcount", "popcount"), ("dot", "popcount"), ("dot", "dot")])
def test_residual_block(target, families):
    """3×3 convolution + 1×1 stride-2 downsample + float skip → ReLU → float and two quantizers."""
    rng = np.random.default_rng(2)
    c, o, shape = 64, 80, (80, 6, 6)
    w1, w4 = grids.bipolar(), grids.twos_complement(4)
    main = ContractPart("a", w1.value(rng.integers(0, 2, (o, c, 3, 3))), w1, (1, 1), (1, 1, 1, 1))
    down = ContractPart("b", w4.value(rng.integers(0, 16, (o, 32, 1, 1))), w4, (2, 2))
    epilogue = [
        Load(0),
        Load(1),
        Load(2),
        Fma(0, f32(rng, o, 0.05), f32(rng, o)),
        Fma(1, f32(rng, o, 0.05), 3),
        Plus(4, 2),
        Clamp(5, 0.0, np.inf),
        Fma(6, np.float32([2.0]), np.float32([0.0])),
        Round(7, "half_even", 0, 3),
        Fma(6, np.float32([5.0]), np.float32([0.5])),
        Slope(9, np.float32([0.3])),
        Round(10, "half_up", 0, 15),
    ]
    layer = Layer(
        "block",
        ["a", "b", "s"],
        ["r", "q2", "q4"],
        shape,
        [ContractTerm([main]), ContractTerm([down]), ViewTerm("s")],
        epilogue,
        [Output("r", 6), Output("q2", 8, Quantizer(A2, 0.5)), Output("q4", 11, Quantizer(A4, 0.2))],
    )
    types = {
        "a": quantized((c, 6, 6), A2),
        "b": quantized((32, 12, 12), A4),
        "s": TensorType(shape),
        "r": TensorType(shape),
        "q2": quantized(shape, A2),
        "q4": quantized(shape, A4),
    }
    values = {
        "a": rng.integers(0, 4, (c, 6, 6)),
        "b": rng.integers(0, 16, (32, 12, 12)),
        "s": rng.normal(0, 1, shape).astype(np.float32),
    }
    form = {"popcount": "planes+sums", "dot": "codes", "lookup": "codes+sums"}
    check(
        layer,
        types,
        values,
        {(0, 0): families[0], (1, 0): families[1]},
        target,
        {
            "a": stored("a", (c, 6, 6), A2, (form[families[0]],), HALO),
            "b": stored("b", (32, 12, 12), A4, (form[families[1]],)),
            "s": stored("s", shape, None, ("float",)),
        },
        {
            "r": stored("r", shape, None, ("float",)),
            "q2": stored("q2", shape, A2, ("planes+sums",), HALO),
            "q4": stored("q4", shape, A4, ("planes", "codes+sums"), HALO),
        },
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("skip_form", ["codes", "planes"])
def test_add_of_codes(target, skip_form):
    """conv → quantize → dequantize + skip codes → requantize."""
    rng = np.random.default_rng(3)
    c, shape, odd = 40, (40, 5, 7), grids.odd(3)
    part = ContractPart("a", grids.odd(2).value(rng.integers(0, 4, (c, c, 3, 3))), grids.odd(2), (1, 1), (1, 1, 1, 1))
    epilogue = [
        Load(0),
        Fma(0, f32(rng, c, 0.2), f32(rng, c)),
        Round(1, "half_even", -8, 7),
        Value(2, grids.twos_complement(4)),
        Load(1),
        Fma(4, np.float32([0.25]), np.float32([0.0])),
        Fma(3, np.float32([0.5]), 5),
        Divide(6, np.float32([0.4])),
        Round(7, "half_even", 0, 7),
    ]
    layer = Layer(
        "add",
        ["a", "s"],
        ["y"],
        shape,
        [ContractTerm([part]), ViewTerm("s")],
        epilogue,
        [Output("y", 8, Quantizer(odd, 0.4))],
    )
    values = {"a": odd.value(rng.integers(0, 8, shape)), "s": odd.value(rng.integers(0, 8, shape))}
    check(
        layer,
        {t: quantized(shape, odd) for t in ("a", "s", "y")},
        values,
        {(0, 0): "popcount"},
        target,
        {"a": stored("a", shape, odd, ("planes+sums",), HALO), "s": stored("s", shape, odd, (skip_form,), HALO)},
        {"y": stored("y", shape, odd, ("planes+sums", "codes"), (2, 1, 0, 1))},
    )


@pytest.mark.parametrize("target", LEVELS)
def test_concat_slices_in_one_contraction(target):
    """Two inputs on different grids, and one tensor both contracted and viewed."""
    rng = np.random.default_rng(4)
    shape, w = (24, 6, 6), grids.twos_complement(3)
    parts = [
        ContractPart("a", w.value(rng.integers(0, 8, (24, 24, 3, 3))), w, (1, 1), (1, 1, 1, 1)),
        ContractPart("b", w.value(rng.integers(0, 8, (24, 48, 1, 1))), w),
    ]
    layer = Layer(
        "cat",
        ["a", "b"],
        ["y"],
        shape,
        [ContractTerm(parts), ViewTerm("a")],
        [Load(0), Load(1), Fma(0, f32(rng, 24, 0.05), 1), Round(2, "half_even", 0, 15)],
        [Output("y", 3, Quantizer(A4, 1.0))],
    )
    values = {"a": rng.integers(0, 4, shape), "b": rng.integers(0, 16, (48, 6, 6))}
    check(
        layer,
        {"a": quantized(shape, A2), "b": quantized((48, 6, 6), A4), "y": quantized(shape, A4)},
        values,
        {(0, 0): "popcount", (0, 1): "dot"},
        target,
        {"a": stored("a", shape, A2, ("planes",), HALO), "b": stored("b", (48, 6, 6), A4, ("codes",))},
        {"y": stored("y", shape, A4, ("planes",), HALO)},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("form", ["codes", "planes"])
def test_tables_of_levels_and_their_product(target, form):
    """Two tables of sizes that are no powers of two, and what a contraction would be told apart by: the product is rounded
    before it is added to."""
    rng = np.random.default_rng(6)
    shape = (24, 3, 5)
    grid = grids.unsigned(4, 3, narrow=True)
    layer = Layer(
        "table",
        ["x", "s"],
        ["r", "y"],
        shape,
        [ViewTerm("x"), ViewTerm("s")],
        [
            Load(0),
            Round(0, "half_even", grid.lo, grid.hi),
            LookUp(1, f32(rng, grid.levels)),
            Load(1),
            Times(2, 3),
            Clamp(4, -3e38, 3e38),
            Plus(5, 3),
            Round(6, "half_even", 0, 2),
            LookUp(7, f32(rng, 3)),
            Times(8, 6),
            Round(9, "half_even", 0, 15),
        ],
        [Output("r", 9), Output("y", 10, Quantizer(A4, 1.0))],
    )
    values = {"x": grid.value(rng.integers(0, grid.levels, shape)), "s": rng.normal(0, 2, shape).astype(np.float32)}
    check(
        layer,
        {"x": quantized(shape, grid), "s": TensorType(shape), "r": TensorType(shape), "y": quantized(shape, A4)},
        values,
        {},
        target,
        {"x": stored("x", shape, grid, (form,), HALO), "s": stored("s", shape, None, ("float",))},
        {"r": stored("r", shape, None, ("float",)), "y": stored("y", shape, A4, ("codes", "planes"), HALO)},
    )


STORED = ("codes", "planes", "float", "plain")
VIEWS = {
    "second half of a split": ((48, 4, 6), (Along(24, 24), Along(4), Along(6))),
    "a slice that no vector begins with": ((40, 4, 6), (Along(20, 7), Along(2, 1), Along(3, 2))),
    "the last channels": ((40, 3, 5), (Along(5, 35), Along(3), Along(5))),
    "twice as large": ((20, 3, 5), (Along(20), Along(6, 0, 1, 2), Along(15, 0, 1, 3))),
    "a number for each channel": ((33, 1, 1), (Along(33), Along(4, 0, 1, 4), Along(7, 0, 1, 7))),
    "a number for each pixel": ((1, 4, 7), (Along(33, 0, 1, 33), Along(4), Along(7))),
    "every second, backwards": ((40, 6, 9), (Along(20, 39, -2), Along(3, 5, -2), Along(3, 0, 4))),
    "every channel twice": ((10, 2, 2), (Along(20, 0, 1, 2), Along(2), Along(2))),
    "of a vector": ((70, 1, 1), (Along(30, 33), Along(1), Along(1))),
    "pixels one by one": ((20, 3, 4), (Along(20), Listed((2, 1, 0, 1, 2, 1)), Listed((1, 0, 1, 2, 3, 2)))),
    "channels one by one": ((40, 2, 2), (Listed((0, 1, 39, 17, 17)), Along(2), Along(1, 1))),
    "all one by one": (
        (33, 2, 3),
        (Listed(tuple(range(32, -1, -2)) + (5, 6)), Listed((1, 1, 0)), Listed((0, 2, 1, 1))),
    ),
}


def order(of, *steps) -> Order:
    """What reshapes (lists) and transposes (tuples) make of a tensor of the shape `of`."""
    at = np.arange(np.prod(of)).reshape(of)
    for step in steps:
        at = at.reshape(step) if isinstance(step, list) else at.transpose(step)
    found = Order.of(at)
    assert found is not None
    return found


def rearranged(of, whole, *steps, along=None):
    return of, order(of, *steps), whole, along or tuple(map(Along, whole))


REARRANGED = {
    "a sequence's rows": rearranged((7, 1, 20), (20, 1, 7), (2, 1, 0)),
    "channels last": rearranged((5, 6, 33), (33, 5, 6), (2, 0, 1)),
    "depth to space": rearranged((36, 3, 5), (4, 9, 15), [3, 3, 4, 3, 5], (2, 3, 0, 4, 1)),
    "depth to space, channels outside": rearranged((80, 2, 3), (20, 4, 6), [20, 2, 2, 2, 3], (0, 3, 1, 4, 2)),
    "space to depth": rearranged((5, 4, 6), (20, 2, 3), [5, 2, 2, 3, 2], (2, 4, 0, 1, 3)),
    "a shuffle": rearranged((24, 2, 3), (24, 2, 3), [3, 8, 2, 3], (1, 0, 2, 3)),
    "a part of an interleaving": rearranged(
        (8, 3, 4), (2, 6, 8), [2, 2, 2, 3, 4], (2, 3, 0, 4, 1), along=(Along(2), Along(4, 1), Along(7, 1))
    ),
    "a part of a shuffle, one by one": rearranged(
        (24, 2, 3),
        (24, 2, 3),
        [3, 8, 2, 3],
        (1, 0, 2, 3),
        along=(Listed((0, 5, 23, 7, 7)), Along(2), Listed((2, 0, 1, 1))),
    ),
    "axes that no digit ends with": rearranged((6, 2, 2), (8, 1, 3), [6, 4], (1, 0)),
    "an order that crosses axes": rearranged((10, 2, 3), (4, 3, 5), [15, 4], (1, 0)),
}


@pytest.mark.parametrize("target", LEVELS[-1:])
@pytest.mark.parametrize(
    "form, name",
    [(f, n) for n, (of, *_) in REARRANGED.items() for f in STORED if f != "planes" or of[0] > IMAGE_CHANNELS],
)
def test_elements_in_another_order(target, form, name):
    rng = np.random.default_rng(7)
    of, by, whole, along = REARRANGED[name]
    shape = tuple(a.size for a in along)
    is_float = form in ("float", "plain")
    grid = None if is_float else A4
    epilogue = [Load(0), Round(0, "half_even", 0, 15)]
    term = RearrangeTerm("x", by, whole, along)
    layer = Layer("moved", ["x"], ["y"], shape, [term], epilogue, [Output("y", 1, Quantizer(A4, 1.0))])
    x = rng.integers(0, 16, of)
    check(
        layer,
        {"x": TensorType(of) if is_float else quantized(of, A4), "y": quantized(shape, A4)},
        {"x": x.astype(np.float32) if is_float else x},
        {},
        target,
        {"x": stored("x", of, grid, (form,), (0, 0, 0, 0) if is_float else HALO)},
        {"y": stored("y", shape, A4, ("codes",), HALO)},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("shape", [(20, 1, 7), (33, 3, 5), (64, 4, 4), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("beside", [False, True])
def test_channels_last_for_what_is_no_layer(target, shape, beside):
    """Beside codes, too, that the same layer writes."""
    rng = np.random.default_rng(3)
    q = rng.integers(-8, 8, (shape[0], 6, 1, 1))
    part = ContractPart("x", q, grids.twos_complement(4))
    steps = [Load(0), Fma(0, f32(rng, shape[0]), f32(rng, shape[0])), Round(1, "half_even", 0, 15)]
    results = [Output("y", 1, channels_last=True), *([Output("z", 2, Quantizer(A4, 1.0))] if beside else [])]
    layer = Layer("rows", ["x"], [r.name for r in results], shape, [ContractTerm([part])], steps, results)
    last = shape[1:] + shape[:1] if shape[1] > 1 else (shape[2], shape[0])
    of = (6, *shape[1:])
    check(
        layer,
        {"x": quantized(of, A4), "y": TensorType(last), "z": quantized(shape, A4)},
        {"x": rng.integers(0, 16, of)},
        {(0, 0): "dot"},
        target,
        {"x": stored("x", of, A4, ("codes+sums",))},
        {"y": stored("y", last), "z": stored("z", shape, A4, ("codes",), HALO)},
    )


@pytest.mark.parametrize("target", LEVELS[-1:])
@pytest.mark.parametrize(
    "form, name",
    [(f, n) for n, (of, _) in VIEWS.items() for f in STORED if f != "planes" or of[0] > IMAGE_CHANNELS],
)
def test_view(target, form, name):
    rng = np.random.default_rng(7)
    of, along = VIEWS[name]
    shape = tuple(a.size for a in along)
    is_float = form in ("float", "plain")
    grid = None if is_float else A4
    epilogue = [Load(0), Round(0, "half_even", 0, 15)]
    layer = Layer("view", ["x"], ["y"], shape, [ViewTerm("x", along)], epilogue, [Output("y", 1, Quantizer(A4, 1.0))])
    x = rng.integers(0, 16, of)
    check(
        layer,
        {"x": TensorType(of) if is_float else quantized(of, A4), "y": quantized(shape, A4)},
        {"x": x.astype(np.float32) if is_float else x},
        {},
        target,
        {"x": stored("x", of, grid, (form,), (0, 0, 0, 0) if is_float else HALO)},
        {"y": stored("y", shape, A4, ("codes",), HALO)},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rounding(target, rounding):
    rng = np.random.default_rng(5)
    shape = (16, 4, 9)
    grid = grids.bipolar() if rounding == "sign" else grids.twos_complement(5)
    lo, hi = (0, 1) if rounding == "sign" else (-16, 15)
    layer = Layer(
        "round",
        ["x"],
        ["y"],
        shape,
        [ViewTerm("x")],
        [Load(0), Round(0, rounding, lo, hi)],
        [Output("y", 1, Quantizer(grid, 1.0, rounding=rounding))],
    )
    x = (rng.integers(-80, 80, shape) / 4).astype(np.float32)  # every kind of tie
    check(
        layer,
        {"x": TensorType(shape), "y": quantized(shape, grid)},
        {"x": x},
        {},
        target,
        {"x": stored("x", shape)},
        {"y": stored("y", shape, grid, ("codes",))},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize(
    "grid",
    [
        grids.twos_complement(4, narrow=True),
        grids.twos_complement(8, narrow=True),
        grids.twos_complement(5, 3),
        grids.unsigned(8, 7),
    ],
    ids=str,
)
def test_ties_go_to_even_whatever_the_lowest_level(target, grid):
    """Odd and even, negative and positive ends of the range; codes, planes, and twice the value added to itself."""
    shape, double = (16, 8, 65), grids.odd(4)
    layer = Layer(
        "round",
        ["x"],
        ["y", "z"],
        shape,
        [ViewTerm("x")],
        [
            Load(0),
            Round(0, "half_even", grid.lo, grid.hi),
            Value(1, grid),
            Fma(2, np.float32([2.0]), 2),
            Round(3, "half_even", -8, 7),
        ],
        [Output("y", 1, Quantizer(grid, 1.0)), Output("z", 4, Quantizer(double, 1.0))],
    )
    x = (np.random.default_rng(7).integers(-600, 600, shape) / 2).astype(np.float32)
    check(
        layer,
        {"x": TensorType(shape), "y": quantized(shape, grid), "z": quantized(shape, double)},
        {"x": x},
        {},
        target,
        {"x": stored("x", shape)},
        {"y": stored("y", shape, grid, ("codes", "planes")), "z": stored("z", shape, double, ("codes",))},
    )


@pytest.mark.parametrize("target", LEVELS)
def test_fma_rounds_once(target):
    """Values chosen so that a multiplication rounded by itself, or in float64, gives other bits."""
    rng = np.random.default_rng(6)
    shape = (64, 16, 16)
    layer = Layer(
        "fma",
        ["x"],
        ["y"],
        shape,
        [ViewTerm("x")],
        [Load(0), Fma(0, f32(rng, 64), f32(rng, 64, 1e-3)), Fma(1, f32(rng, 64), 0)],
        [Output("y", 2)],
    )
    x = (rng.normal(0, 1, shape) * 10.0 ** rng.integers(-6, 6, shape)).astype(np.float32)
    check(
        layer,
        {"x": TensorType(shape), "y": TensorType(shape)},
        {"x": x},
        {},
        target,
        {"x": stored("x", shape)},
        {"y": stored("y", shape, None, ("plain", "float"))},
    )
