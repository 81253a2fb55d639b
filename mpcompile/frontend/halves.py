"""float16 and bfloat16, as NVIDIA's ModelOpt leaves them between quantizers: such tensors are computed in float32, which
holds every value of both."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
NAMES_A_TYPE = ("to", "dtype", "output_dtype", "output_datatype", "precision", "stash_type", "softmax_precision")
"""Attributes whose number is an element type."""


def widen(model: ir.Model) -> bool:
    """Makes every half of `model` a float32: constants, types of values, and what casts and the like write. Whether there
    was any."""
    graph = model.graph
    found = _has_halves(graph)
    for value in (*graph.inputs, *graph.initializers.values()):
        _widen_value(value)
    for node in graph:
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in HALVES:
                node.attributes[name] = ir.AttrTensor(name, _widened(attribute.value))
            elif attribute.type == ir.AttributeType.INT and name in NAMES_A_TYPE and attribute.value in HALVES:
                node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT)
        for value in node.outputs:
            _widen_value(value)
    return found


def _has_halves(graph: ir.Graph) -> bool:
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    casts = (
        a for node in graph for name, a in node.attributes.items() if name == "to" and a.type == ir.AttributeType.INT
    )
    return any(v.dtype in HALVES for v in values) or any(a.value in HALVES for a in casts)


def _widen_value(value: ir.Value) -> None:
    if value.const_value is not None and value.const_value.dtype in HALVES:
        value.const_value = _widened(value.const_value)
    if value.dtype in HALVES:
        value.dtype = ir.DataType.FLOAT


def _widened(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)
