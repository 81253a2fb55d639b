"""A node of the graph as a FloatOp: a model of ONNX operators with a batch axis of 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mpcompile.ir.graph import FloatOp, Graph, Node

OPSET = 17


class Step(NamedTuple):
    """An ONNX operator, from `reads` to `writes`, with attributes."""

    op_type: str
    reads: Sequence[str]
    writes: str
    attributes: Mapping[str, Any] = {}


def as_float_op(
    node: Node, graph: Graph, op_type: str, steps: Sequence[Step], constants: Mapping[str, np.ndarray], reason: str
) -> FloatOp:
    """`steps` compute y of x0, x1, …, the node's inputs (one that comes twice is named twice), and of `constants`."""
    from onnx import TensorProto, helper, numpy_helper

    names = [f"x{i}" for i in range(len(node.inputs))]
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, *graph.types[t].shape))
        for n, t in zip([*names, "y"], [*node.inputs, *node.outputs])
    ]
    nodes = [helper.make_node(s.op_type, s.reads, [s.writes], **s.attributes) for s in steps]
    held = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    body = helper.make_graph(nodes, "operator", ports[:-1], ports[-1:], held)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return FloatOp(node.name, list(node.inputs), list(node.outputs), op_type, model.SerializeToString(), reason)
