"""MaxPool → … → Quantize becomes … → Quantize → MaxPool: the pool then works on codes, and the float map is never
written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.compiler.passes.dataflow import MOST_FUSED, Dataflow
from mpcompile.ir.graph import Affine, Clip, Graph, Node, Pooling, PRelu, Quantize, TensorType


@dataclass(frozen=True)
class SinkPools(Pass):
    """Before: any graph. After: a MaxPool in float remains only where something reads its result in float.

    The largest value of a window stays the largest under operators that never decrease, rounding included, so values do
    not change, bit by bit. A pool that has a float reader (a skip) stays as it is, and its layer has two outputs.
    """

    name: ClassVar[str] = "sink_pools"

    def apply(self, graph: Graph) -> Graph:
        flow, consumers = Dataflow(graph), graph.consumers()
        types = dict(graph.types)
        moved: dict[str, list[list[Node]]] = {}  # pool output → the chains below it, each ending in a Quantize
        inside: set[int] = set()
        for node in graph.nodes:
            if isinstance(node, Pooling) and node.kind == "max" and flow.quantizer(node.inputs[0]) is None:
                chains = _chains(node.outputs[0], consumers, graph.outputs)
                if chains:
                    moved[node.outputs[0]] = chains
                    inside.update(id(n) for chain in chains for n in chain)
        nodes: list[Node] = []
        for node in graph.nodes:
            if isinstance(node, Pooling) and node.outputs[0] in moved:
                for chain in moved[node.outputs[0]]:
                    nodes += _above(node, chain, types)
            elif id(node) not in inside:
                nodes.append(node)
        return with_nodes(graph, nodes, types)


def _chains(
    tensor: str, consumers: dict[str, list[Node]], outputs: list[str], longest: int = MOST_FUSED
) -> list[list[Node]]:
    """Every way down from `tensor` through operators that never decrease, each to its first Quantize; [] if one ends
    elsewhere, or is longer."""
    if tensor in outputs or not consumers[tensor] or not longest:
        return []
    found: list[list[Node]] = []
    for node in consumers[tensor]:
        if isinstance(node, Quantize):
            found.append([node])
        else:
            below = _chains(node.outputs[0], consumers, outputs, longest - 1) if _never_decreases(node) else []
            if not below:
                return []
            found += [[node, *chain] for chain in below]
    return found


def _never_decreases(node: Node) -> bool:
    match node:
        case Clip():
            return True
        case Affine():
            return bool(np.all(node.a >= 0))
        case PRelu():
            return bool(np.all(node.slope >= 0))
    return False


def _above(pool: Pooling, chain: list[Node], types: dict[str, TensorType]) -> list[Node]:
    """`chain` over the pool's input, then the pool, which writes what the chain wrote."""
    made, tensor = [], pool.inputs[0]
    shape = types[tensor].shape
    for node in chain:
        name = fresh(types, node.outputs[0] + ".unpooled")
        types[name] = TensorType(shape, types[node.outputs[0]].quantizer)
        made.append(replace(node, inputs=[tensor], outputs=[name]))
        tensor = name
    return [*made, replace(pool, inputs=[tensor], outputs=list(chain[-1].outputs))]
