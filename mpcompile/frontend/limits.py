"""How large a model may be. Small files can ask for much: doubled concats, nested functions, constants that expand. Each
limit is far above what networks need, and the message that refuses names it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from mpcompile.errors import ModelError

MOST_ELEMENTS = 1 << 31
"""Values of one tensor between layers, batch left out."""
MOST_FOLDED = 1 << 28
"""Values of one constant that is computed while a model is read: a gibibyte of float32."""
MOST_PARTS = 4096
"""Tensors that one concat, through concats of concats, puts side by side."""
MOST_NODES = 1 << 20
"""Operators of a model, its local functions inlined."""


def check_elements(where, shape: Sequence[int], most: int = MOST_ELEMENTS) -> None:
    """Raises ModelError, beginning with `where`, at a tensor of more values than `most`."""
    if math.prod(shape) > most:
        raise ModelError(
            f"{where}: a tensor of {list(shape)}, {math.prod(shape):,} values; up to {most:,} would be accepted"
        )


def check_functions(model: ir.Model, path) -> None:
    """Raises ModelError where inlining the model's local functions would not end, or would make too many operators."""
    sizes: dict[tuple, int] = {}
    calls = {key: [node.op_identifier() for node in f.all_nodes()] for key, f in model.functions.items()}
    open_: list[tuple] = []
    for start in model.functions:
        open_.append(start)
        while open_:
            here = open_[-1]
            waiting = [key for key in dict.fromkeys(calls[here]) if key in calls and key not in sizes]
            if here in sizes or not waiting:
                sizes[here] = sum(sizes.get(key, 1) for key in calls[here])
                open_.pop()
            elif set(waiting) & set(open_):
                again = next(key for key in waiting if key in open_)
                raise ModelError(f"{path}: function {again[1]} calls itself; functions that end would be accepted")
            else:
                open_.append(waiting[0])
    total = sum(sizes.get(node.op_identifier(), 1) for node in model.graph.all_nodes())
    if total > MOST_NODES:
        raise ModelError(
            f"{path} has {total:,} operators once its functions are inlined; up to {MOST_NODES:,} would be accepted"
        )
