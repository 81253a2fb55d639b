"""What ONNX itself says of a node: its outputs' shapes and types, by onnx's shape inference."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.values import Activation, Codes, Constant, IntegerInput, QuantizedConstant

SHOWN = 64
"""Constants of at most so many values are shown to the inference whole: shapes, axes and the like; of others the shape."""


def inferred(model: onnx.ModelProto) -> list[tuple[int, tuple[int, ...] | None]]:
    """(element type, shape or None where some dimension is not known) of each output. Raises onnx's InferenceError."""
    found = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output
    shapes = []
    for value in found:
        kind = value.type.tensor_type
        known = kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim)
        shapes.append((kind.elem_type, tuple(d.dim_value for d in kind.shape.dim) if known else None))
    return shapes


def check_outputs(imp: Importer, node: Source) -> None:
    """Compares what the graph says of a node's outputs with what ONNX says. Raises ModelError where ONNX forbids the
    node, or where shapes differ: nothing later would notice, and kernels do not check their bounds."""
    batch = imp.graph.batch or 1
    inputs, constants = [], []
    for name in dict.fromkeys(node.input_name(i) for i in range(node.count) if node.has(i)):
        value = imp.values[name]
        if isinstance(value, Constant) and value.array.size <= SHOWN:
            constants.append(onnx.numpy_helper.from_array(np.asarray(value.array, order="C"), name))
            continue
        kind = _element_type(imp, name, value)
        inputs.append(onnx.helper.make_tensor_value_info(name, kind, _shape(imp, value, batch)))
    outputs = [name for name in node.outputs if name in imp.values]
    if node.op_type == "DynamicQuantizeLinear":
        outputs = node.outputs[:1]  # the others are scalars, whose axes are kept here (dynamic.py)
    graph = onnx.helper.make_graph(
        [ir.serde.serialize_node(node.node)], "node", inputs, [onnx.ValueInfoProto(name=o) for o in outputs], constants
    )
    opsets = [onnx.helper.make_opsetid("", imp.opset)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=max(4, imp.model.ir_version))
    try:
        found = inferred(model)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{node}: its inputs do not fit ({str(error).strip().splitlines()[-1].strip()})") from error
    for (_, shape), name in zip(found, outputs):
        mine = tuple(int(n) for n in _shape(imp, imp.values[name], batch))
        if shape is not None and shape != mine:
            raise ModelError(
                f"{node}: ONNX gives {name} the shape {list(shape)}, it was read as {list(mine)}; tell us, if the model is "
                "right"
            )


def _shape(imp: Importer, value, batch: int) -> tuple[int, ...]:
    if isinstance(value, (Constant, QuantizedConstant)):
        return tuple(imp.shape(value))
    shape = imp.type(value.tensor).shape
    return shape if value.tensor in imp.whole else (batch, *shape)


def _element_type(imp: Importer, name: str, value) -> int:
    if isinstance(value, Constant):
        return onnx.helper.np_dtype_to_tensor_dtype(value.array.dtype)
    if isinstance(value, (Codes, IntegerInput)):
        return ir.DataType[imp.type_name(name) or "UINT8"].value
    assert isinstance(value, (Activation, QuantizedConstant))
    return onnx.TensorProto.FLOAT
