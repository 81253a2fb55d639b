"""The operations of ir/smooth.py as expressions of TIR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpcompile.ir import smooth
from mpcompile.kernels.epilogue import NEAREST_BITS, f32
from mpcompile.kernels.primitives import fma
from mpcompile.kernels.tvm_names import tirx


class _Tir:
    def __init__(self) -> None:
        self.bound: list[tuple[Any, Any]] = []

    def const(self, value: float) -> Any:
        return f32(value)

    def fma(self, x, a, b) -> Any:
        return fma(x, a, b)

    def times(self, x, y) -> Any:
        return x * y

    def minus(self, x, y) -> Any:
        return x - y

    def divide(self, x, y) -> Any:
        return x / y

    def least(self, x, y) -> Any:
        return tirx.min(x, y)

    def greatest(self, x, y) -> Any:
        return tirx.max(x, y)

    def below(self, x, limit: float, then, otherwise) -> Any:
        return tirx.Select(x < f32(limit), then, otherwise)

    def power_of_two(self, whole) -> Any:
        exponent = tirx.reinterpret("int32", whole) + (127 - NEAREST_BITS)
        return tirx.reinterpret("float32", exponent << 23)

    def once(self, x) -> Any:
        variable = tirx.Var(f"s{len(self.bound)}", "float32")
        self.bound.append((variable, x))
        return variable


def apply(name: str, x: Any, parameters: Sequence[float]) -> Any:
    """The function of the expression x, float32, inside a scope of `primitives_of`."""
    do = _Tir()
    value = smooth.apply(name, do, x, parameters)
    for variable, of in reversed(do.bound):
        value = tirx.Let(variable, of, value)
    return value
