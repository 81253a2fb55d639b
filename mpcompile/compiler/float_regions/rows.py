"""Functions of rows: softmax, normalisation, reductions along the last axis, in vectors whatever the row's length.

A row is read in vectors of partial results, of which there are so many that no addition waits for the one before; the
partial results are then put together by halves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from mpcompile.compiler.float_regions.loops import Array, Index, Loops
from mpcompile.kernels.epilogue import f32
from mpcompile.kernels.tvm_names import PrimFunc, tirx

DEEP = 4
"""Vectors of partial results."""
WIDE = 2
"""Vectors of a function at once."""
LEAST = -3.4028234663852886e38
Shape = tuple[int, ...]
Combine = Callable[[Any, Any], Any]


def softmax(shape: Shape, lanes: int, logarithm: bool = False) -> PrimFunc:
    """exp(x − m) / Σ exp(x − m) along the last axis, or its logarithm x − m − log Σ exp(x − m); m is the row's largest."""
    do, size = Loops(lanes), shape[-1]
    rows = prod(shape) // size

    def body(x: Array, y: Array) -> None:
        with do.shared(rows, 16 * rows * size) as row:
            first, scalars = row * size, do.local(2)
            do.store(scalars, 0, _reduced(do, size, LEAST, tirx.max, lambda i: x[first + i]))

            def power(i: Index) -> Any:
                return tirx.exp(x[first + i] - scalars[0])

            if logarithm:
                total = _reduced(do, size, 0.0, _plus, power, WIDE)
                do.store(scalars, 1, scalars[0] + tirx.log(total))
                do.fill(y, first, size, lambda i: x[first + i] - scalars[1])
                return
            do.fill(y, first, size, power, WIDE * lanes)
            do.store(scalars, 1, f32(1.0) / _reduced(do, size, 0.0, _plus, lambda i: y[first + i]))
            do.fill(y, first, size, lambda i: y[first + i] * scalars[1], DEEP * lanes)

    return do.function([shape, shape], body)


def layer_norm(shapes: Sequence[Shape], axes: int, epsilon: float, lanes: int) -> PrimFunc:
    """x, gamma, beta → (x − mean) / √(variance + epsilon)·gamma + beta over so many last axes, those of gamma and beta."""
    do, size = Loops(lanes), prod(shapes[0][-axes:])
    rows = prod(shapes[0]) // size

    def body(x: Array, gamma: Array, beta: Array, y: Array) -> None:
        with do.shared(rows, 8 * rows * size) as row:
            first, scalars = row * size, do.local(2)
            share = f32(1 / size)
            do.store(scalars, 0, _reduced(do, size, 0.0, _plus, lambda i: x[first + i]) * share)

            def square(i: Index) -> Any:
                return (x[first + i] - scalars[0]) * (x[first + i] - scalars[0])

            variance = _reduced(do, size, 0.0, _plus, square) * share
            do.store(scalars, 1, f32(1.0) / tirx.sqrt(variance + f32(epsilon)))
            do.fill(
                y, first, size, lambda i: (x[first + i] - scalars[0]) * scalars[1] * gamma[i] + beta[i], DEEP * lanes
            )

    return do.function([*shapes, shapes[0]], body)


REDUCTIONS: dict[str, tuple[float, Combine]] = {
    "relax.sum": (0.0, lambda a, b: a + b),
    "relax.mean": (0.0, lambda a, b: a + b),
    "relax.max": (-float("inf"), tirx.max),
    "relax.min": (float("inf"), tirx.min),
}
"""Relax's operator → (what it begins with, how two values become one)."""


def reduction(operator: str, shape: Shape, result: Shape, lanes: int) -> PrimFunc:
    """Along those last axes that the result lacks, or has as 1."""
    do, (begin, combine) = Loops(lanes), REDUCTIONS[operator]
    rows, size = prod(result), prod(shape) // prod(result)
    factor = f32(1 / size) if operator == "relax.mean" else None

    def body(x: Array, y: Array) -> None:
        with do.shared(rows, rows * size) as row:
            value = _reduced(do, size, begin, combine, lambda i: x[row * size + i])
            do.store(y, row, value if factor is None else value * factor)

    return do.function([shape, result], body)


def _plus(a: Any, b: Any) -> Any:
    return a + b


def _reduced(
    do: Loops, size: int, begin: float, combine: Combine, value: Callable[[Index], Any], deep: int = DEEP
) -> Any:
    """The values of a row as one."""
    width = do.width * deep
    while width > 1 and width > size:
        width //= 2
    partial = do.local(width)
    do.fill(partial, 0, width, lambda i: f32(begin), width)

    def some(at: Index, lanes: int) -> None:
        with do.lanes(lanes) as lane:
            do.store(partial, lane, combine(partial[lane], value(at + lane)))

    do.each(size, width, some)
    while width > 1:
        width //= 2
        with do.lanes(width) as lane:
            do.store(partial, lane, combine(partial[lane], partial[lane + width]))
    return partial[0]
