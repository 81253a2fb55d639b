"""MatMul: products of matrices, of which there may be several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.epilogues import Epilogue
from mpcompile.compiler.float_regions.loops import Array, Index, Loops
from mpcompile.compiler.float_regions.product import product
from mpcompile.kernels.tvm_names import PrimFunc

Shape = tuple[int, ...]


def matmul(a: Shape, b: Shape, result: Shape, vectors: Vectors, epilogue: Epilogue) -> PrimFunc:
    """(…, rows, depth) by (…, depth, columns); axes in front are those of numpy's rules."""
    depth, columns = b[-2:]
    before = result[:-2]
    if all(n == 1 for n in b[:-2]):  # all rows meet the same matrix
        rows, before = prod(a[:-1]), ()
    else:
        rows = a[-2]
    do, matrices = Loops(vectors.lanes), prod(before)
    work = matrices * rows * columns * depth
    by_matrix = matrices * vectors.lanes >= columns  # else threads share the columns

    def body(x: Array, z: Array, *others: Array) -> None:
        *besides, y = others
        with do.shared(matrices, work if by_matrix else 0) as matrix:
            x0 = matrix_of(matrix, before, a[:-2]) * (rows * depth) if before else 0
            z0 = matrix_of(matrix, before, b[:-2]) * (depth * columns) if before else 0

            def store(row: Index, column: Index, count: int, value: Callable[[Index], Any]) -> None:
                first = (matrix * rows + row) * columns + column
                line = row % a[-2] if rows > a[-2] else row

                def of(i: Index) -> Any:
                    index = [*[0] * (len(result) - 2), line, column + i]
                    return epilogue.of(value(i), first + i, index, besides)

                do.fill(y, first, count, of)

            product(
                do,
                vectors,
                (rows, depth, columns),
                lambda row, k: x[x0 + row * depth + k],
                lambda k, column: z[z0 + k * columns + column],
                None,
                store,
                0 if by_matrix else work,
            )

    return do.function([a, b, *epilogue.shapes, result], body)


def matrix_of(number: Index, before: Sequence[int], axes: Sequence[int]) -> Index:
    """Which matrix of a factor, whose axes in front are `axes`, meets number `number` of the result's."""
    found, stride, left = 0, 1, number
    for extent, own in zip(reversed(before), [*reversed(axes), *[1] * len(before)]):
        if own != 1:
            found = found + left % extent * stride
            stride *= own
        left = left // extent
    return found
