"""Smooth functions, the larger of two, pixels between pixels, in kernels: byte for byte what the reference says."""

import numpy as np
import pytest

from mpcompile.frontend.picking import between
from mpcompile.ir import grid as grids
from mpcompile.ir.graph import Quantizer, TensorType
from mpcompile.ir.layer import (
    Apply,
    Clamp,
    ContractPart,
    ContractTerm,
    Fma,
    InterpolateTerm,
    Largest,
    Layer,
    Load,
    Output,
    Plus,
    Round,
    Smallest,
    ViewTerm,
)
from mpcompile.ir.smooth import FUNCTIONS
from mpcompile.kernels.spec import IMAGE_CHANNELS
from tests.kernels.harness import LEVELS, check, stored

A4, A8 = grids.unsigned(4), grids.unsigned(8)
HALO = (1, 1, 1, 1)
PARAMETERS = {"elu": (0.75, 1.25, 0.5), "silu": (1.7,)}
FLOAT_MAX = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "target, shape", [(level, (20, 3, 5)) for level in LEVELS] + [(LEVELS[-1], (7, 1, 9))], ids=str
)
def test_a_function_of_an_accumulator(target, shape, name):
    """With a sum behind it, which no compiler may join with its last product; over the whole range of values."""
    rng = np.random.default_rng(1)
    q = rng.integers(-8, 8, (shape[0], 6, 1, 1))
    part = ContractPart("x", q, grids.twos_complement(4))
    scale, offset = rng.choice([0.003, 0.03, 0.3, 3.0], shape[0]), rng.normal(0, 1, shape[0])
    steps = [
        Load(0),
        Fma(0, scale.astype(np.float32), offset.astype(np.float32)),
        Apply(1, name, PARAMETERS.get(name, ())),
        Clamp(2, -FLOAT_MAX, FLOAT_MAX),
        Plus(3, 1),
        Fma(4, np.float32([20.0]), np.float32([90.0])),
        Round(5, "half_even", 0, 255),
    ]
    results = [Output("z", 2), Output("y", 6, Quantizer(A8, 0.05))]
    of = (6, *shape[1:])
    layer = Layer("applied", ["x"], ["z", "y"], shape, [ContractTerm([part])], steps, results)
    check(
        layer,
        {"x": TensorType(of, Quantizer(A4, 1.0)), "z": TensorType(shape), "y": TensorType(shape, Quantizer(A8, 0.05))},
        {"x": rng.integers(0, 16, of)},
        {(0, 0): "dot"},
        target,
        {"x": stored("x", of, A4, ("codes+sums",))},
        {"z": stored("z", shape), "y": stored("y", shape, A8, ("codes",), HALO)},
    )


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "half_down", "up", "down", "floor", "ceil"])
def test_a_function_rounded_in_every_way(rounding):
    """Some read the function's value several times: what it binds must be bound once."""
    rng = np.random.default_rng(4)
    shape = (20, 1, 5)
    narrow, wide = rng.uniform(0, 0.5, 20).astype(np.float32), np.float32([9.0])
    steps = [
        Load(0),
        Fma(0, narrow, np.float32([0.0])),
        Apply(1, "tanh", ()),
        Fma(2, wide, np.float32([0.0])),
        Round(3, rounding, -8, 7),
    ]
    grid = grids.twos_complement(4)
    kind = TensorType(shape, Quantizer(grid, 1.0))
    layer = Layer("rounded", ["a"], ["y"], shape, [ViewTerm("a")], steps, [Output("y", 4, Quantizer(grid, 1.0))])
    check(
        layer,
        {"a": kind, "y": kind},
        {"a": rng.integers(-8, 8, shape)},
        {},
        LEVELS[-1],
        {"a": stored("a", shape, grid, ("codes",))},
        {"y": stored("y", shape, grid, ("codes",))},
    )


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("made", [Largest, Smallest])
def test_the_larger_of_two(target, made):
    rng = np.random.default_rng(2)
    shape = (20, 3, 5)
    steps = [Load(0), Load(1), Fma(1, np.float32([0.7]), np.float32([0.1])), made(0, 2), Round(3, "half_even", 0, 15)]
    layer = Layer(
        "two", ["a", "b"], ["y"], shape, [ViewTerm("a"), ViewTerm("b")], steps, [Output("y", 4, Quantizer(A4, 1.0))]
    )
    kind = TensorType(shape, Quantizer(A4, 1.0))
    check(
        layer,
        {"a": kind, "b": kind, "y": kind},
        {"a": rng.integers(0, 16, shape), "b": rng.integers(0, 16, shape)},
        {},
        target,
        {"a": stored("a", shape, A4, ("codes",), HALO), "b": stored("b", shape, A4, ("codes",), HALO)},
        {"y": stored("y", shape, A4, ("codes",), HALO)},
    )


@pytest.mark.parametrize("target, form", [(LEVELS[-1], "planes"), *((level, "codes") for level in LEVELS)])
@pytest.mark.parametrize("channels, after", [(20, (8, 10)), (70, (5, 3)), (3, (1, 7))], ids=str)
def test_pixels_between_pixels(target, form, channels, after):
    form = "codes" if channels <= IMAGE_CHANNELS else form
    rng = np.random.default_rng(3)
    of, shape = (channels, 4, 5), (channels, *after)
    lines, columns = (between(old, new, new / old, "half_pixel") for old, new in zip(of[1:], after))
    term = InterpolateTerm("x", 0.123, lines, columns)
    steps = [Load(0), Fma(0, np.float32([8.0]), np.float32([0.0])), Round(1, "half_even", 0, 15)]
    results = [Output("z", 0), Output("y", 2, Quantizer(A4, 0.125))]
    layer = Layer("between", ["x"], ["z", "y"], shape, [term], steps, results)
    check(
        layer,
        {
            "x": TensorType(of, Quantizer(A4, 0.123)),
            "z": TensorType(shape),
            "y": TensorType(shape, Quantizer(A4, 0.125)),
        },
        {"x": rng.integers(0, 16, of)},
        {},
        target,
        {"x": stored("x", of, A4, (form,), HALO)},
        {"z": stored("z", shape), "y": stored("y", shape, A4, ("codes",), HALO)},
    )
