"""Constants with a row for each sample, in a file whose batch is fixed above 1: a class token [8, 1, C] beside the tokens
[8, T, C], positions [8, T, C], a mask [8, 1, T, T]. Where all samples have the same they have one row here, as every tensor
has; where they do not, the file computes something else of each place in its batch, and is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.values import Constant, QuantizedConstant, Value

ALIGNED = frozenset(
    """
    Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Concat Div Equal Gemm Greater GreaterOrEqual Less LessOrEqual MatMul
    Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor
    """.split()
)
"""Operators that pair the first axes of inputs of as many axes."""


@contextmanager
def one_row(imp: Importer, node: Source) -> Iterator[None]:
    """While it is open, constants with a row for each sample that the node reads stand for the first, and the shape that an
    Expand makes for that of one sample. Raises ModelError where rows differ."""
    kept = {node.input_name(i): imp.value(node, i) for i in _batched(imp, node)}
    imp.values.update({name: _first(node, name, value) for name, value in kept.items()})
    yield
    imp.values.update(kept)


def _first(node: Source, name: str, value: Value) -> Value:
    assert isinstance(value, (Constant, QuantizedConstant)), "constants alone have rows that are known"
    if isinstance(value, Constant) and node.op_type == "Expand":
        return Constant(np.array([1, *value.array[1:]], value.array.dtype))
    rows = value.array if isinstance(value, Constant) else value.real()
    if not (rows == rows[:1]).all():
        raise ModelError(
            f"{node}: its constant {name} differs between the {len(rows)} samples of the batch; one that is the same for "
            "all would be accepted"
        )
    return Constant(rows[:1]) if isinstance(value, Constant) else value.rearranged(lambda array: array[:1])


def _batched(imp: Importer, node: Source) -> list[int]:
    """The inputs that are constants whose first axis is the batch, or a shape with it in front."""
    batch = imp.graph.batch or 1
    if batch == 1 or node.node.domain not in ("", "ai.onnx"):
        return []
    given = {i: imp.value(node, i) for i in range(node.count) if node.has(i)}
    if node.op_type == "Expand":
        to = given[1]
        whole = isinstance(to, Constant) and to.array.shape == (len(imp.shape(given[0])),) and to.array[0] == batch
        return [1] if whole else []
    if node.op_type not in ALIGNED:
        return []
    shapes = {i: imp.shape(value) for i, value in given.items()}
    rank = max(map(len, shapes.values()))
    if node.op_type == "Gemm":
        candidates = [2]
    elif (node.op_type == "MatMul" and rank < 3) or (
        node.op_type == "Concat" and node.attribute("axis", 1) % rank == 0
    ):
        candidates = []
    else:
        candidates = list(given)
    computed = any(len(shapes[i]) == rank and not imp.is_constant(node, i) for i in given)
    return [
        i
        for i in candidates
        if computed and i in given and imp.is_constant(node, i) and len(shapes[i]) == rank and shapes[i][0] == batch
    ]
