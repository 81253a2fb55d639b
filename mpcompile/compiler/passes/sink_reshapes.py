"""Flatten → Quantize → Dense becomes Quantize → Flatten → Dense, so that the dense layer reads the map itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.compiler.passes.dataflow import as_map
from mpcompile.ir.graph import Affine, Clip, Graph, Node, PRelu, Quantize, Reshape, Table, TensorType


@dataclass(frozen=True)
class SinkReshapes(Pass):
    """After: no elementwise operator that is the same for all channels reads a reshape of a (C,), (C, L) or (C, H, W);
    two reshapes in a row are one. Values do not change.
    """

    name: ClassVar[str] = "sink_reshapes"

    def apply(self, graph: Graph) -> Graph:
        types, nodes = dict(graph.types), []
        made: dict[str, Node] = {}
        for node in graph.nodes:
            source = made.get(node.inputs[0]) if len(node.inputs) == 1 else None
            if isinstance(source, Reshape):
                if isinstance(node, Reshape):
                    node = replace(node, inputs=source.inputs)
                elif _everywhere_the_same(node) and as_map(types[source.inputs[0]].shape):
                    outer = node.outputs
                    inner = fresh(types, outer[0] + ".map")
                    types[inner] = TensorType(types[source.inputs[0]].shape, types[outer[0]].quantizer)
                    node = replace(node, inputs=source.inputs, outputs=[inner])
                    nodes.append(node)
                    made[inner] = node
                    node = replace(source, inputs=[inner], outputs=outer)
            nodes.append(node)
            made.update((t, node) for t in node.outputs)
        return with_nodes(graph, nodes, types)


def _everywhere_the_same(node: Node) -> bool:
    match node:
        case Quantize() | Clip() | Table():
            return True
        case Affine():
            return np.size(node.a) == 1 and np.size(node.b) == 1
        case PRelu():
            return np.size(node.slope) == 1
    return False
