"""Operators by element over more than three axes, or none: layers see maps (C, H, W), so these work on a view of such.

Quantize(x [3, H, T, D])  =  Reshape(Quantize(Reshape(x, [1, 3·H·T·D])), [3, H, T, D])
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from mpcompile.frontend.importer import Importer
from mpcompile.ir.graph import Add, Affine, Clip, Graph, Mul, Node, PRelu, Quantize, Reshape, TensorType

BY_ELEMENT = (Add, Affine, Clip, Mul, PRelu, Quantize)


def flatten(imp: Importer) -> None:
    """Rewrites such operators of the graph; their outputs keep names and shapes."""
    graph, nodes = imp.graph, []
    for node in graph.nodes:
        shape = graph.types[node.outputs[0]].shape
        if not isinstance(node, BY_ELEMENT) or 1 <= len(shape) <= 3:
            nodes.append(node)
            continue
        line = shape and _everywhere_the_same(node)
        flat = (1, prod(shape)) if line else (shape[0], prod(shape[1:])) if shape else (1,)
        views = [_view(imp, graph, nodes, node, t, flat) for t in node.inputs]
        output = node.outputs[0]
        inner = imp.unique(f"{output}.flat")
        graph.types[inner] = TensorType(flat, graph.types[output].quantizer)
        nodes.append(replace(node, name=imp.unique(f"{node.name}.flat"), inputs=views, outputs=[inner]))
        nodes.append(Reshape(node.name, [inner], [output], shape))
    graph.nodes = nodes


def _everywhere_the_same(node: Node) -> bool:
    """Whether no constant of it belongs to a channel: then its elements are one line, which any vector divides."""
    constants = [getattr(node, name) for name in ("a", "b", "slope") if hasattr(node, name)]
    return all(np.size(constant) == 1 for constant in constants)


def _view(imp: Importer, graph: Graph, nodes: list[Node], node: Node, tensor: str, flat: tuple[int, ...]) -> str:
    """`tensor` in the shape `flat`, by a Reshape in front of `node`."""
    name = imp.unique(f"{tensor}.flat")
    graph.types[name] = TensorType(flat, graph.types[tensor].quantizer)
    nodes.append(Reshape(imp.unique(f"{node.name}.view"), [tensor], [name], flat))
    return name
