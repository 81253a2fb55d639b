"""Runs a fused graph exactly, one node after another, and keeps every tensor. What kernels must equal bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.graph import Concat, FloatOp, Graph, Node, Reshape, Transpose
from mpcompile.ir.layer import Layer, Output
from mpcompile.reference.epilogue import evaluate
from mpcompile.reference.float_op import run_float_op
from mpcompile.reference.ops import term

Tensors = dict[str, np.ndarray]


FloatOperator = Callable[[FloatOp, list[np.ndarray]], list[np.ndarray]]


def run(
    graph: Graph, inputs: Tensors, *, float_op: FloatOperator | None = None, given: Tensors | None = None
) -> Tensors:
    """Every tensor of `graph` by name, shaped as in graph.types: int64 values q where it is quantized, else float32.

    `graph` holds Layer, FloatOp, Reshape, Transpose and Concat nodes. `inputs` are float32 without a batch axis (or
    with one of 1). A FloatOp is evaluated by `float_op(node, inputs) -> outputs` (none: onnx's reference evaluator),
    unless `given` holds its outputs, which are then taken as they are. Raises UsageError at inputs that do not fit the
    model, ModelError at a node that cannot be run.
    """
    tensors = model_inputs(graph, inputs)
    for node in graph.nodes:
        if isinstance(node, FloatOp) and given and all(t in given for t in node.outputs):
            tensors |= {t: _typed(np.asarray(given[t]), graph, t, node) for t in node.outputs}
        else:
            tensors |= run_node(node, graph, tensors, float_op)
    return tensors


def run_node(node: Node, graph: Graph, tensors: Tensors, float_op: FloatOperator | None = None) -> Tensors:
    """The outputs of one node by name, from `tensors`, which holds its inputs; else as `run`."""
    values = _values(node, graph, [tensors[t] for t in node.inputs], tensors, float_op or run_float_op)
    return {t: _typed(value, graph, t, node) for t, value in zip(node.outputs, values)}


def model_inputs(graph: Graph, inputs: Tensors) -> Tensors:
    """The inputs by name, in their types' shapes: float32, or int64 values where the type has a quantizer (a part of a
    network). Raises UsageError at what does not fit."""
    unknown = sorted(set(inputs) - set(graph.inputs))
    if unknown:
        raise UsageError(f"the model has no input {unknown[0]}: it has {', '.join(graph.inputs)}")
    return {name: _input(graph, inputs, name) for name in graph.inputs}


def _input(graph: Graph, inputs: Tensors, name: str) -> np.ndarray:
    shape = graph.types[name].shape
    if name not in inputs:
        raise UsageError(f"there is no array for the model's input {name}")
    value = np.asarray(inputs[name], np.int64 if graph.types[name].quantizer else np.float32)
    if value.shape not in (shape, (1, *shape)):
        raise UsageError(f"input {name} has the shape {value.shape}, the model takes {shape}")
    return value.reshape(shape)


def _values(
    node: Node, graph: Graph, inputs: list[np.ndarray], tensors: Tensors, float_op: FloatOperator
) -> list[np.ndarray]:
    match node:
        case Layer():
            return layer(node, tensors)
        case Reshape():
            return [inputs[0].reshape(node.shape)]
        case Transpose():
            return [inputs[0].transpose(node.perm)]
        case Concat():
            if len({graph.types[t].quantizer for t in (*node.inputs, *node.outputs)}) > 1:
                raise ModelError(f"node {node.name} (Concat) joins different grids or scales: it is not fused")
            return [np.concatenate(inputs)]
        case FloatOp():
            for t in node.inputs:
                if graph.types[t].quantizer:
                    raise ModelError(f"node {node.name} ({node.op_type}) runs in float but reads the codes {t}")
            return float_op(node, inputs)
    raise ModelError(f"node {node.name} ({node.op}) is not fused: the reference runs layers and float operators")


def layer(node: Layer, tensors: Tensors) -> list[np.ndarray]:
    """The outputs of one layer, in order: values q int64 or float32, (O, HO, WO), or (HO, WO, O) with channels last."""
    terms = []
    for t in node.terms:
        try:
            value = term(t, tensors)
        except ModelError as e:
            raise ModelError(f"layer {node.name}: {e}") from None
        if value.shape != tuple(node.shape):
            raise ModelError(f"layer {node.name} is {tuple(node.shape)}, but a term of it gives {value.shape}")
        terms.append(value)
    values = evaluate(node.epilogue, terms)
    return [_result(r, values[r.value]) for r in node.results]


def _result(result: Output, value: np.ndarray) -> np.ndarray:
    if result.quantizer:
        return result.quantizer.grid.value(value)
    return value.transpose(1, 2, 0) if result.channels_last else value


def _typed(value: np.ndarray, graph: Graph, name: str, node: Node) -> np.ndarray:
    """`value` in its type's shape and dtype. Raises ModelError where the sizes differ."""
    t = graph.types[name]
    if value.size != np.prod(t.shape, dtype=np.int64):
        raise ModelError(f"node {node.name} ({node.op}) gives {name} the shape {value.shape}, its type says {t.shape}")
    return np.ascontiguousarray(value.reshape(t.shape), np.int64 if t.quantizer else np.float32)
