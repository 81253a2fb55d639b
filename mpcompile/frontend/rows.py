"""A dense layer over each row of a sequence or of a map with its channels last: a convolution of kernel 1, whose positions
the rows are, between two transposes. Layers that read and write the rows take the transposes in (passes/)."""

from __future__ import annotations

import math

import numpy as np

from mpcompile.frontend.importer import Importer, Source
from mpcompile.ir.graph import (
    Affine,
    Conv,
    FloatOp,
    Quantize,
    QuantizedWeight,
    Quantizer,
    Reshape,
    Transpose,
)

MOST_AXES = 3
"""Of a map; of more axes all but the last are one."""


def over_rows(
    imp: Importer, node: Source, x: str, weight: QuantizedWeight, bias: np.ndarray | None, output: str
) -> None:
    """x (…, I) to (…, O) by weights [O, I] and `bias` [O] or None: the tensor `output`."""
    *rows, wide = imp.type(x).shape
    many, outputs, kept = rows, len(weight.q), imp.type(x).quantizer
    if len(rows) + 1 > MOST_AXES:
        many = [math.prod(rows)]
        x = _emit(imp, node, Reshape, x, "rows", (*many, wide), kept, shape=(*many, wide))
    axes = len(many)
    x = _emit(imp, node, Transpose, x, "turned", (wide, *many), kept, perm=(axes, *range(axes)))
    q = weight.q.reshape(*weight.q.shape, *[1] * axes)
    columns = imp.unique(f"{output}.columns")
    made = QuantizedWeight(q, weight.grid, weight.scale)
    ones, pads = (1,) * axes, ((0, 0),) * axes
    imp.emit(Conv(node.name, [x], [columns], made, bias, ones, pads, ones), (outputs, *many))
    if many == rows:
        _back(imp, node, columns, output)
        return
    back = imp.unique(f"{output}.back")
    _back(imp, node, columns, back)
    shape = (*rows, outputs)
    imp.emit(Reshape(imp.unique(f"{node.name}.apart"), [back], [output], shape), shape)


def _emit(imp: Importer, node: Source, made, x: str, what: str, to, quantizer: Quantizer | None, **options) -> str:
    output = imp.unique(f"{node.outputs[0]}.{what}")
    return imp.emit(made(imp.unique(f"{node.name}.{what}"), [x], [output], **options), to, quantizer)


def _back(imp: Importer, node: Source, x: str, output: str) -> None:
    """`output`: x with its channels last."""
    first, *many = imp.type(x).shape
    perm = (*range(1, len(many) + 1), 0)
    imp.emit(Transpose(imp.unique(f"{node.name}.back"), [x], [output], perm), (*many, first))


def of_layers(imp: Importer, tensor: str) -> bool:
    """Whether layers compute `tensor`, as rows or as codes, so that what is done to each of its columns is theirs, too."""
    node = imp.writers.get(tensor)
    while node is not None and not imp.type(tensor).quantizer:
        if isinstance(node, Conv):
            return True
        if not isinstance(node, (Affine, Quantize, Reshape, Transpose)):
            return False
        tensor = node.inputs[0]
        node = imp.writers.get(tensor)
    return node is not None


def in_layers(imp: Importer, tensor: str) -> bool:
    """Whether a layer computes `tensor`, a map, or what is only reshaped and transposed of such."""
    node = imp.writers.get(tensor)
    while isinstance(node, (Reshape, Transpose)):
        node = imp.writers.get(node.inputs[0])
    return node is not None and not isinstance(node, FloatOp) and len(imp.type(tensor).shape) <= MOST_AXES


def affine_of_columns(imp: Importer, node: Source, x: str, a: np.ndarray, b: np.ndarray) -> None:
    """a·x + b along the last axis of x: output 0 of `node`. a, b float64 [F] or [1]."""
    *many, wide = imp.type(x).shape
    axes = len(many)
    turned = _emit(imp, node, Transpose, x, "turned", (wide, *many), imp.type(x).quantizer, perm=(axes, *range(axes)))
    made = _emit(imp, node, Affine, turned, "columns", (wide, *many), None, a=a, b=b)
    _back(imp, node, made, node.outputs[0])
