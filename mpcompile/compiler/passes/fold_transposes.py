"""Reshapes and transposes, one after another, as one order of a map's elements: what layers read then moves as they read
it, in the form that it is stored in (DepthToSpace, channel shuffles, channels last, rows of a sequence)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.compiler.passes.dataflow import BINARY, UNARY, as_map
from mpcompile.ir.graph import (
    Along,
    Concat,
    Conv,
    Dense,
    Graph,
    Node,
    Pooling,
    QuantizedWeight,
    Rearrange,
    Reshape,
    TensorType,
    Transpose,
    View,
)
from mpcompile.ir.order import Order

MOST_ELEMENTS = 1 << 24
"""Of a map whose order is looked for, element by element; in larger ones reshapes and transposes stay what they are."""
READERS = (*UNARY, *BINARY, Conv, Dense, Pooling, View, Concat)


@dataclass(frozen=True, eq=False)
class Moved:
    """A tensor that is `source` after `steps`, reshapes and transposes, of which one at least is a transpose, if
    `turned`."""

    source: str
    steps: tuple[Node, ...]
    turned: bool


@dataclass(frozen=True)
class FoldTransposes(Pass):
    """After: no operator that a layer computes reads a transposed map through reshapes and transposes alone, where a map's
    elements are in an `Order`: it reads a Rearrange, or with weights in that order the map itself. Values do not change.
    """

    name: ClassVar[str] = "fold_transposes"

    def apply(self, graph: Graph) -> Graph:
        if not any(isinstance(n, Transpose) for n in graph.nodes):
            return graph
        types, nodes = dict(graph.types), []
        moved: dict[str, Moved] = {}
        made: dict[str, str] = {}
        for node in graph.nodes:
            if isinstance(node, (Reshape, Transpose)):
                before = moved.get(node.inputs[0], Moved(node.inputs[0], (), False))
                turned = before.turned or isinstance(node, Transpose)
                moved[node.outputs[0]] = Moved(before.source, (*before.steps, node), turned)
            elif isinstance(node, READERS):
                node = _reordered(node, moved, types, nodes)
                inputs = [_rearranged(t, moved, made, types, nodes) for t in node.inputs]
                node = replace(node, inputs=inputs)
            nodes.append(node)
        return with_nodes(graph, nodes, types)


def _order(moved: Moved, types: dict[str, TensorType]) -> Order | None:
    shape = types[moved.source].shape
    if np.prod(shape, dtype=np.int64) > MOST_ELEMENTS:
        return None
    at = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    for step in moved.steps:
        at = at.transpose(step.perm) if isinstance(step, Transpose) else at.reshape(types[step.outputs[0]].shape)
    return Order.of(at)


def _rearranged(
    tensor: str, moved: dict[str, Moved], made: dict[str, str], types: dict[str, TensorType], nodes: list[Node]
) -> str:
    """The tensor that has the same values as `tensor` by a Rearrange, which is written into `nodes`; what reshapes gave its
    own shape again; itself where it is no transposed map."""
    found = moved.get(tensor)
    if found is not None and not found.turned and types[found.source].shape == types[tensor].shape:
        return found.source
    if found is None or not found.turned or tensor in made:
        return made.get(tensor, tensor)
    made[tensor] = tensor
    shape, before = types[tensor].shape, types[found.source].shape
    order = _order(found, types) if as_map(shape) and as_map(before) else None
    if order is not None:
        if order.moves_nothing and shape == before:
            made[tensor] = found.source
        else:
            name = made[tensor] = fresh(types, f"{tensor}.moved")
            types[name] = types[tensor]
            nodes.append(rearrange(found.steps[-1].name, found.source, name, order, shape))
    return made[tensor]


def rearrange(name: str, source: str, output: str, order: Order, shape: tuple[int, ...]) -> Node:
    """A Rearrange of all elements, or a Reshape where none moves."""
    if order.moves_nothing:
        return Reshape(name, [source], [output], shape)
    return Rearrange(name, [source], [output], order, shape, tuple(map(Along, shape)))


def _reordered(node: Node, moved: dict[str, Moved], types: dict[str, TensorType], nodes: list[Node]) -> Node:
    """A contraction of a map whose channels (of a dense layer: whose elements) are in another order, with its weights in
    that order; else the node itself."""
    if not isinstance(node, (Conv, Dense)):
        return node
    found = moved.get(node.inputs[0])
    if found is None or not found.turned or not as_map(types[found.source].shape):
        return node
    order = _order(found, types)
    if order is None:
        return node
    before, shape = types[found.source].shape, types[node.inputs[0]].shape
    indices = order.indices()
    if isinstance(node, Conv):
        pixels = int(np.prod(shape[1:], dtype=np.int64))
        channels = indices[::pixels] // pixels
        apart = np.add.outer(channels * pixels, np.arange(pixels)).reshape(-1)
        if node.groups > 1 or before != shape or not np.array_equal(apart, indices):
            return node
        return replace(node, inputs=[found.source], weight=_ordered(node.weight, channels))
    flat = fresh(types, f"{node.inputs[0]}.flat")
    types[flat] = TensorType(shape, types[node.inputs[0]].quantizer)
    nodes.append(Reshape(found.steps[-1].name, [found.source], [flat], shape))
    return replace(node, inputs=[flat], weight=_ordered(node.weight, indices))


def _ordered(weight: QuantizedWeight, indices: np.ndarray) -> QuantizedWeight:
    """Weights for an input whose element i was element indices[i]."""
    q = np.empty_like(weight.q)
    q[:, indices] = weight.q
    return QuantizedWeight(q, weight.grid, weight.scale)
