"""The last resort for a concat: a copy of float32 tensors, for readers that are no contraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mpcompile.compiler.passes.as_float_op import Step, as_float_op
from mpcompile.compiler.passes.base import Pass, with_nodes
from mpcompile.ir.graph import Concat, FloatOp, Graph, Node


@dataclass(frozen=True)
class FloatConcats(Pass):
    """Before: after `fuse_layers`. After: every Concat is a FloatOp. None is left of those that contractions alone
    read."""

    name: ClassVar[str] = "float_concats"

    def apply(self, graph: Graph) -> Graph:
        readers = graph.consumers()
        return with_nodes(
            graph,
            [
                _float_op(n, graph, _reason(n, graph, readers[n.outputs[0]])) if isinstance(n, Concat) else n
                for n in graph.nodes
            ],
        )


def _reason(node: Concat, graph: Graph, readers: list[Node]) -> str:
    """Who wants it in one piece."""
    by = next((n for n in readers if not isinstance(n, (FloatOp, Concat))), None)
    if by is not None:
        return f"{by.name} reads it in one piece, where a convolution would read its parts"
    if node.outputs[0] in graph.outputs:
        return "it is an output"
    return "what reads it runs in float"


def _float_op(node: Concat, graph: Graph, reason: str) -> FloatOp:
    names = [f"x{i}" for i in range(len(node.inputs))]
    return as_float_op(node, graph, "Concat", [Step("Concat", names, "y", {"axis": 1})], {}, reason)
