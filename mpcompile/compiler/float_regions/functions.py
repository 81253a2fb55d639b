"""exp, tanh, erf and sigmoid of float operators by the sequences of ir/smooth.py, which become vectors, as rounding by the
kernels' primitive does: calls of the C library do not. Beyond the ends of float32, and of NaN, they are what ONNX says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mpcompile.ir.smooth import MOST_EXP
from mpcompile.kernels import smooth
from mpcompile.kernels.epilogue import f32, once
from mpcompile.kernels.primitives import nearbyint, primitives_of
from mpcompile.kernels.tvm_names import PrimFunc, map_calls, tirx

UNDERFLOWS = -87.33654022216797
"""The least x whose exp is a normal float32: below it is taken for 0."""


def vectorizable(function: PrimFunc) -> PrimFunc:
    """The same function with these calls of float32 replaced."""
    with primitives_of("cpu"):
        made = {f"tirx.{name}": _or_nan(made) for name, made in FUNCTIONS.items()}
        return map_calls(function, {"tirx.nearbyint": nearbyint, **made})


def _exp(x: Any) -> Any:
    """Above MOST_EXP, where smooth.exp ends, that of x − 1 times e, which overflows where it should."""
    above = x > f32(MOST_EXP)
    inside = smooth.apply("exp", tirx.Select(above, x - f32(1.0), x), ())

    def of(value: Any) -> Any:
        return tirx.Select(x < f32(UNDERFLOWS), f32(0.0), tirx.Select(above, value * f32(math.e), value))

    return once(inside, of)


def _of(name: str) -> Callable[[Any], Any]:
    return lambda x: smooth.apply(name, x, ())


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": _exp, "tanh": _of("tanh"), "erf": _of("erf"), "sigmoid": _of("sigmoid")
}  # fmt: skip


def _or_nan(made: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: once(x, lambda x: tirx.Select(tirx.isnan(x), x, made(x)))
