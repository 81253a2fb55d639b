"""What lies between operators that run in float runs in float with them: operators by element, in one loop, and means or
maxima of whole maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.as_float_op import Step, as_float_op
from mpcompile.compiler.passes.base import Pass, with_nodes
from mpcompile.errors import ModelError
from mpcompile.ir.graph import (
    Add,
    Affine,
    Clip,
    Concat,
    FloatOp,
    Graph,
    Larger,
    Mul,
    Node,
    Pooling,
    PRelu,
    Reshape,
    Smaller,
    Smooth,
    Transpose,
)

REASON = "what reads it, or what it reads, runs in float"
OF_TWO = {Add: "Add", Larger: "Max", Mul: "Mul", Smaller: "Min"}
SMOOTH: dict[str, tuple[str, tuple[Step, ...], dict[str, float]]] = {
    "exp": ("Exp", (Step("Exp", ("x0",), "y"),), {}),
    "sigmoid": ("Sigmoid", (Step("Sigmoid", ("x0",), "y"),), {}),
    "tanh": ("Tanh", (Step("Tanh", ("x0",), "y"),), {}),
    "erf": ("Erf", (Step("Erf", ("x0",), "y"),), {}),
    "silu": (
        "Swish",
        (Step("Mul", ("x0", "alpha"), "u"), Step("Sigmoid", ("u",), "s"), Step("Mul", ("x0", "s"), "y")),
        {"alpha": 1.0},
    ),
    "gelu": (
        "Gelu",
        (
            Step("Mul", ("x0", "root"), "u"),
            Step("Erf", ("u",), "e"),
            Step("Mul", ("e", "half"), "h"),
            Step("Add", ("h", "half"), "s"),
            Step("Mul", ("x0", "s"), "y"),
        ),
        {"root": math.sqrt(0.5), "half": 0.5},
    ),
    "gelu_tanh": (
        "Gelu",
        (
            Step("Mul", ("x0", "x0"), "square"),
            Step("Mul", ("square", "cubic"), "c"),
            Step("Add", ("c", "linear"), "inner"),
            Step("Mul", ("x0", "inner"), "u"),
            Step("Tanh", ("u",), "t"),
            Step("Mul", ("t", "half"), "h"),
            Step("Add", ("h", "half"), "s"),
            Step("Mul", ("x0", "s"), "y"),
        ),
        {"cubic": 0.044715 * math.sqrt(2 / math.pi), "linear": math.sqrt(2 / math.pi), "half": 0.5},
    ),
}
"""Function of ir/smooth.py → its operator, the same in others, and their constants: those made of what is a vector in
float, too (float_regions/functions.py). Others, of log and expm1, stay layers."""


JUMP = frozenset(
    """
    ArgMax ArgMin Cast Ceil DynamicQuantizeLinear Equal Floor Greater GreaterOrEqual Less LessOrEqual Mod MultiThreshold
    NonMaxSuppression Round Sign TopK
    """.split()
)
"""Operators in float whose result is another where what they read is but one rounding off; as are quantizers of 16 bits."""


@dataclass(frozen=True)
class BetweenFloats(Pass):
    """Before: `fuse_layers` is to come. After: an operator by element, or a pool of whole maps, is a FloatOp of the same
    name where all that writes its inputs and reads its output runs in float or is another one like it (or the model's
    caller), and at least one of these is an operator in float: a layer among them would store what their loops keep in
    registers. What a contraction on integers, another pool or a quantizer writes or reads is as it was, and what rounds in
    float reads (JUMP): layers are exact to the last bit, loops in float are not.
    """

    name: ClassVar[str] = "between_floats"

    def apply(self, graph: Graph) -> Graph:
        found = _found(graph)
        return with_nodes(graph, [_float_op(n, graph) if id(n) in found else n for n in graph.nodes])


def _found(graph: Graph) -> set[int]:
    """ids of the nodes that are to run in float."""
    producer, readers = graph.producer(), graph.consumers()

    def writer(tensor: str) -> Node | None:
        """Through views; None of the model's inputs."""
        node = producer.get(tensor)
        while isinstance(node, (Reshape, Transpose)):
            node = producer.get(node.inputs[0])
        return node

    def reading(tensor: str) -> list[Node]:
        """Through views."""
        ahead, through = list(readers[tensor]), []
        while ahead:
            node = ahead.pop()
            if isinstance(node, (Reshape, Transpose)):
                ahead += readers[node.outputs[0]]
            else:
                through.append(node)
        return through

    def jumps(node: Node) -> bool:
        return isinstance(node, FloatOp) and (node.op_type in JUMP or node.op_type.startswith("QuantizeLinear"))

    beside = {
        id(n): [*map(writer, n.inputs), *reading(n.outputs[0])]
        for n in graph.nodes
        if _has_form(n, graph) and not any(graph.types[t].quantizer for t in (*n.inputs, *n.outputs))
        if not any(map(jumps, reading(n.outputs[0])))
    }
    inside, last = set(beside), 0
    while len(inside) != last:
        last = len(inside)
        inside = {i for i in inside if all(n is None or id(n) in inside or _in_float(n, graph) for n in beside[i])}
    reached, ahead = set(), [i for i in inside if any(isinstance(n, FloatOp) for n in beside[i])]
    while ahead:
        at = ahead.pop()
        if at not in reached:
            reached.add(at)
            ahead += [id(n) for n in beside[at] if id(n) in inside]
    return reached


def _has_form(node: Node, graph: Graph) -> bool:
    if isinstance(node, Smooth):
        return node.function in SMOOTH
    if isinstance(node, Pooling):
        return tuple(node.kernel) == graph.types[node.inputs[0]].shape[1:] and not np.any(node.pads)
    return isinstance(node, (Affine, Clip, PRelu, *OF_TWO))


def _in_float(node: Node, graph: Graph) -> bool:
    """A FloatOp, or a copy of float32."""
    return isinstance(node, FloatOp) or (isinstance(node, Concat) and graph.types[node.outputs[0]].quantizer is None)


def _float_op(node: Node, graph: Graph) -> FloatOp:
    steps, constants = _steps(node, len(graph.types[node.outputs[0]].shape))
    op_type = SMOOTH[node.function][0] if isinstance(node, Smooth) else steps[0].op_type
    return as_float_op(node, graph, op_type, steps, constants, REASON)


def _steps(node: Node, rank: int) -> tuple[tuple[Step, ...], dict[str, np.ndarray]]:
    """ONNX's operators, and the constants that they read. `rank`: axes without batch. Raises ModelError where float32
    does not hold a constant."""
    match node:
        case Affine():
            a, b = (_constant(values, node, rank) for values in (node.a, node.b))
            if not b.any():
                return (Step("Mul", ("x0", "a"), "y"),), {"a": a}
            if (a == 1).all():
                return (Step("Add", ("x0", "b"), "y"),), {"b": b}
            return (Step("Mul", ("x0", "a"), "ax"), Step("Add", ("ax", "b"), "y")), {"a": a, "b": b}
        case Clip(lo=0.0, hi=np.inf):
            return (Step("Relu", ("x0",), "y"),), {}
        case Clip(lo=lo, hi=hi):
            ends = {n: np.array(v, np.float32) for n, v in (("lo", lo), ("hi", hi)) if np.isfinite(v)}
            return (Step("Clip", ("x0", *(n if n in ends else "" for n in ("lo", "hi"))), "y"),), ends
        case Pooling(kind=kind):
            axes = {"axes": [*range(2, rank + 1)], "keepdims": 1}
            return (Step("ReduceMean" if kind == "avg" else "ReduceMax", ("x0",), "y", axes),), {}
        case PRelu(slope=slope):
            return (Step("PRelu", ("x0", "slope"), "y"),), {"slope": _constant(slope, node, rank)}
        case Smooth(function=function, parameters=parameters):
            _, steps, constants = SMOOTH[function]
            alpha = {"alpha": parameters[0]} if parameters else {}
            return steps, {n: np.array(v, np.float32) for n, v in {**constants, **alpha}.items()}
    return (Step(OF_TWO[type(node)], ("x0", "x1"), "y"),), {}


def _constant(values: np.ndarray, node: Node, rank: int) -> np.ndarray:
    """One, or one for each channel."""
    with np.errstate(over="ignore"):
        made = np.asarray(values, np.float64).reshape(-1).astype(np.float32)
    if not np.isfinite(made).all():
        worst = np.asarray(values).reshape(-1)[~np.isfinite(made)][0]
        raise ModelError(f"node {node.name} ({node.op}): a scale or bias leaves float32 ({worst})")
    return made.reshape(-1, *(1,) * (rank - 1)) if made.size > 1 else made.reshape(())
