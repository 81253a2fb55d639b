"""Splits a fused graph into layers, views, and regions of float operators: what runs, in order. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

from mpcompile.errors import ModelError
from mpcompile.ir.graph import Concat, FloatOp, Graph, Node, Reshape, Transpose
from mpcompile.ir.layer import Layer


@dataclass(frozen=True, eq=False)
class Region:
    """Float operators with no layer between them. `inputs`: plain tensors from outside, in the order of reading;
    `results`: plain tensors that have a place in memory of their own, in the order of writing.

    A tensor that goes from a FloatOp to FloatOps of the region alone is no result: TVM may fuse it away. All else is one,
    also where it stays inside: Transpose, Concat and Reshape read and write tensors as they lie in memory.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]


Unit = Layer | Reshape | Region
"""What a graph consists of for the plan. A Reshape is a view: the same bytes under another shape."""


def split(graph: Graph) -> list[Unit]:
    """The graph as layers, regions and the reshapes between them. Raises ModelError at an operator that was not fused.

    The order is the graph's, but for FloatOps that only FloatOps behind a layer read: they run right before their first
    reader, so that TVM sees the whole chain. Regions are maximal in this order; a Reshape at an end of one is a view.
    """
    units: list[Unit] = []
    run: list[Node] = []
    views: list[Reshape] = []
    count = 0

    def close() -> None:
        nonlocal count
        if run:
            count += 1
            units.append(_region(graph, f"region{count}", run))
        units.extend(views)
        run.clear(), views.clear()

    for node in _chains_together(graph):
        match node:
            case Layer():
                close()
                units.append(node)
            case Reshape():
                views.append(node)
            case FloatOp() | Transpose() | Concat():
                if not run:
                    close()
                run.extend([*views, node])
                views.clear()
            case _:
                raise ModelError(f"node {node.name} ({node.op}) is not fused: layers and float operators are compiled")
    close()
    return units


def regions_of(units: list[Unit]) -> list[Region]:
    return [unit for unit in units if isinstance(unit, Region)]


def _region(graph: Graph, name: str, nodes: list[Node]) -> Region:
    readers, written = graph.consumers(), {t for n in nodes for t in n.outputs}
    passed_on = {
        t
        for n in nodes
        for t in n.outputs
        if isinstance(n, FloatOp) and t not in graph.outputs
        if all(isinstance(r, FloatOp) and r in nodes for r in readers[t])
    }
    inputs = dict.fromkeys(t for n in nodes for t in n.inputs if t not in written)
    results = [t for n in nodes for t in n.outputs if t not in passed_on]
    return Region(name, tuple(nodes), tuple(inputs), tuple(results))


def _chains_together(graph: Graph) -> list[Node]:
    """The nodes in an order that is topological too: a FloatOp that only FloatOps read stands right before the first of
    them, where a layer was in between."""
    readers = graph.consumers()
    behind: list[Node] = []  # in reverse: the last node first
    for node in reversed(graph.nodes):
        at = len(behind)
        reading = [r for t in node.outputs for r in readers[t]]
        inner = reading and not set(node.outputs) & set(graph.outputs)
        if isinstance(node, FloatOp) and inner and all(isinstance(r, FloatOp) for r in reading):
            first = max(behind.index(r) for r in reading) + 1
            if any(isinstance(n, Layer) for n in behind[first:]):
                at = first
        behind.insert(at, node)
    return behind[::-1]
