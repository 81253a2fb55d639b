"""Calls of a region as an ONNX model, for the frontend that reads files.

The model is a region's own language, not a file for others: it may hold QONNX's IntQuant beside QuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mpcompile.tvm_frontend.dataflow import Call, NotMatched, Value

OPSET, IR_VERSION = 21, 10
QONNX = "qonnx.custom_op.general"

Handler = Callable[["Writer", Call], None]
HANDLERS: dict[str, Handler] = {}


def operator(*names: str) -> Callable[[Handler], Handler]:
    """Enters a handler for calls of these operators. It writes nodes, or raises NotMatched."""

    def enter(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return enter


class Writer:
    """An ONNX graph in the making. Node names are those of `calls`, numbered."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.names: dict[Value, str] = {}
        self.call_of: dict[str, Call] = {}
        self.call: Call | None = None
        self.count = 0

    def take(self, call: Call) -> None:
        """Writes a call. Raises NotMatched, with nothing written of it that anything reads."""
        handler = HANDLERS.get(call.op)
        if handler is None:
            raise NotMatched(f"{call.op or 'it'} has no form on integers here")
        self.call = call
        handler(self, call)

    def name(self, value: Value) -> str:
        """What a value is called; a constant becomes an initializer."""
        if value not in self.names:
            self.names[value] = self.constant(value.array) if value.array is not None else self.fresh("t")
        return self.names[value]

    def fresh(self, begin: str) -> str:
        self.count += 1
        return f"{begin}{self.count}"

    def constant(self, array: np.ndarray) -> str:
        """The name of a new initializer."""
        name = self.fresh("c")
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def node(
        self,
        op_type: str,
        inputs: Sequence[Value | str],
        output: Value | str | None = None,
        *,
        domain: str = "",
        **attrs: Any,
    ) -> str:
        """Adds a node of one output: `output`, or a new one; its name."""
        assert self.call is not None
        written = self.fresh("t") if output is None else output if isinstance(output, str) else self.name(output)
        name = f"{self.call.name}.{len(self.nodes)}"
        read = [i if isinstance(i, str) else self.name(i) for i in inputs]
        self.nodes.append(helper.make_node(op_type, read, [written], name=name, domain=domain, **attrs))
        self.call_of[name] = self.call
        return written

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value], name: str) -> onnx.ModelProto:
        """The finished model: inputs and outputs in this order."""
        ports = [
            [helper.make_tensor_value_info(self.name(v), type_of(v), list(v.shape)) for v in values]
            for values in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, name, ports[0], ports[1], self.initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(QONNX, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mpcompile")


def type_of(value: Value) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))


def why_not(call: Call) -> str | None:
    """Why a call cannot be part of a region by what can be seen of it alone; None where it may be one."""
    try:
        Writer().take(call)
    except NotMatched as reason:
        return str(reason)
    return None


def write(
    calls: Sequence[Call], inputs: Sequence[Value], outputs: Sequence[Value], name: str
) -> tuple[onnx.ModelProto, dict]:
    """The model of these calls, and which node is whose: node name → call. Raises NotMatched."""
    writer = Writer()
    for value in inputs:
        writer.names[value] = writer.fresh("x")
    for call in calls:
        writer.take(call)
    return writer.model(inputs, outputs, name), writer.call_of
