"""ONNX files with tensors of 2 or 4 bits, which TVM's importers do not read, as files with 8-bit tensors that compute the
same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mpcompile.errors import ModelError

WIDER = {
    getattr(TensorProto, name): (name, getattr(TensorProto, wider), low, high)
    for name, wider, low, high in (
        ("INT4", "INT8", -8, 7),
        ("UINT4", "UINT8", 0, 15),
        ("INT2", "INT8", -2, 1),
        ("UINT2", "UINT8", 0, 3),
    )
    if hasattr(TensorProto, name)  # those of 2 bits: since onnx 1.20
}
"""Element type → its name, the type that takes its place, and its least and greatest integer."""
TYPE_ATTRIBUTES = {"QuantizeLinear": "output_dtype", "Cast": "to"}


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself where it has no such tensors; otherwise another one in which they have 8 bits, and each
    QuantizeLinear that made one is followed by a Clip: saturating to 8 bits and then to fewer is saturating to fewer.

    Raises ModelError where an input, an output or a Cast has such a type: what wraps around, or what a user hands over,
    cannot be said otherwise.
    """
    if not any(kind in WIDER for kind in _types(model.graph)):
        return model
    made = onnx.shape_inference.infer_shapes(model)  # a copy, in which every tensor's type is known
    _widen(made.graph)
    return made


def _types(graph: onnx.GraphProto) -> Iterator[int]:
    """The element types that a graph's ports, constants and attributes name."""
    for port in (*graph.input, *graph.output):
        yield port.type.tensor_type.elem_type
    for tensor in graph.initializer:
        yield tensor.data_type
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == TYPE_ATTRIBUTES.get(node.op_type):
                yield attribute.i
            if attribute.HasField("t"):
                yield attribute.t.data_type
            if attribute.HasField("g"):
                yield from _types(attribute.g)


def _widen(graph: onnx.GraphProto) -> None:
    for what, ports in (("input", graph.input), ("output", graph.output)):
        for port in ports:
            if (kind := port.type.tensor_type.elem_type) in WIDER:
                raise ModelError(f"its {what} {port.name} is of type {WIDER[kind][0]}; one of 8 bits would be accepted")
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in graph.value_info:
        if (kind := value.type.tensor_type).elem_type in WIDER:
            kind.elem_type = WIDER[kind.elem_type][1]
    for tensor in graph.initializer:
        _tensor(tensor)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _tensor(attribute.t)
            if attribute.HasField("g"):
                _widen(attribute.g)
        nodes.append(node)
        made = types.get(node.output[0], TensorProto.UNDEFINED) if node.output else TensorProto.UNDEFINED
        if made in WIDER and node.op_type == "Cast":
            raise ModelError(f"node {node.name} (Cast): to {WIDER[made][0]}; a QuantizeLinear would be accepted")
        if made in WIDER and node.op_type == "QuantizeLinear":
            nodes.append(_clipped(graph, node, made))
    del graph.node[:]
    graph.node.extend(nodes)


def _tensor(tensor: TensorProto) -> None:
    if tensor.data_type in WIDER:
        wider = helper.tensor_dtype_to_np_dtype(WIDER[tensor.data_type][1])
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(wider), tensor.name))


def _clipped(graph: onnx.GraphProto, node: onnx.NodeProto, made: int) -> onnx.NodeProto:
    """Lets a QuantizeLinear make 8 bits, its type said by a zero point; the Clip that makes what it made."""
    _, wider, low, high = WIDER[made]
    kind, name = helper.tensor_dtype_to_np_dtype(wider), node.output[0]

    def constant(suffix: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value.astype(kind), f"{name}.{suffix}"))
        return f"{name}.{suffix}"

    if len(node.input) < 3 or not node.input[2]:
        scale = next((t.dims for t in graph.initializer if t.name == node.input[1]), ())
        del node.input[2:]
        node.input.append(constant("zero", np.zeros(tuple(scale))))
    kept = [a for a in node.attribute if a.name != TYPE_ATTRIBUTES["QuantizeLinear"]]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.output[0] = f"{name}.codes"
    bounds = [constant("low", np.array(low)), constant("high", np.array(high))]
    return helper.make_node("Clip", [node.output[0], *bounds], [name], name=f"{node.name}.clip")
