"""What a pass is: a frozen dataclass with typed options and one `apply`, from a graph to a new graph.

A pass's docstring states what holds before and after it. It never changes a node or graph that it was given: it makes
new ones. Passes here need no TVM.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

from mpcompile.ir.graph import Graph


@dataclass(frozen=True)
class Pass(ABC):
    """Subclasses are frozen dataclasses; their fields are the pass's options."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, graph: Graph) -> Graph:
        """A new graph. Raises ModelError, naming the node, at what cannot be compiled."""


def apply_all(graph: Graph, passes: Iterable[Pass], after: Callable[[Pass, Graph], None] | None = None) -> Graph:
    """Every pass in order, the graph checked before the first and after each; `after(pass, graph)` sees each result."""
    graph.check()
    for p in passes:
        graph = p.apply(graph).check()
        if after:
            after(p, graph)
    return graph


def with_nodes(graph: Graph, nodes, types=None) -> Graph:
    """`graph` with other nodes (and types); ports, source and batch are kept. Nodes that no output needs are dropped,
    and types that nothing names."""
    types = graph.types if types is None else types
    live, kept = set(graph.outputs), []
    for node in reversed(list(nodes)):
        if live & set(node.outputs):
            live.update(node.inputs)
            kept.append(node)
    kept.reverse()
    named = {t for n in kept for t in (*n.inputs, *n.outputs)} | set(graph.inputs) | set(graph.outputs)
    return Graph(
        kept,
        {t: ty for t, ty in types.items() if t in named},
        list(graph.inputs),
        list(graph.outputs),
        graph.source,
        graph.batch,
        graph.dtypes,
    )


def fresh(taken, base: str) -> str:
    """`base`, or base.2, base.3, … : the first that is not in `taken`."""
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}.{n}"
    return name
