"""Splits a fused graph into layers, views, and regions of float operators: what runs, in order. numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp, Graph, Node, Reshape, Transpose
from mpcompile.ir.layer import Layer


@dataclass(frozen=True, eq=False)
class Region:
    """Float operators with no layer between them. `inputs`: plain tensors from outside, in the order of reading;
    `results`: plain tensors that have a place in memory of their own, in the order of writing.

    A tensor that goes from a FloatOp to FloatOps of the region alone is no result: TVM may fuse it away. All else is one,
    also where it stays inside: Transpose and Reshape read and write tensors as they lie in memory.
    """

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    results: tuple[str, ...]


Unit = Layer | Reshape | Region
"""What a graph consists of for the plan. A Reshape is a view: the same bytes under another shape."""


def split(graph: Graph) -> list[Unit]:
    """The graph as layers, regions and the reshapes between them. Raises ModelError at an operator that was not fused.

    The order is the graph's, but for FloatOps of a chain with layers in between, which are brought together so that TVM
    sees them as one. Regions are maximal in this order; a Reshape at an end of one is a view.
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
        run.clear()
        views.clear()

    for node in _chains_together(graph):
        match node:
            case Layer():
                close()
                units.append(node)
            case Reshape():
                views.append(node)
            case FloatOp() | Transpose():
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
    """The nodes in an order that is topological too, in which no layer stands between FloatOps of a chain where it need
    not: the later one runs before the layer where it can, else the earlier one behind it."""
    readers = graph.consumers()
    inner = {
        t
        for n in graph.nodes
        for t in n.outputs
        if isinstance(n, FloatOp) and t not in graph.outputs
        if all(isinstance(r, FloatOp) for r in readers[t])
    }
    order: list[Node] = []
    for node in graph.nodes:
        at, written = len(order), _last(order, lambda n: bool(set(n.outputs) & set(node.inputs)))
        if isinstance(node, FloatOp) and written >= 0 and inner & set(order[written].outputs):
            at = next((i for i in range(written + 1, at) if isinstance(order[i], Layer)), at)
        order.insert(at, node)
    for node in reversed(list(order)):
        if isinstance(node, FloatOp) and set(node.outputs) <= inner:
            here = order.index(node)
            read = next((i for i, n in enumerate(order) if set(n.inputs) & set(node.outputs)), here)
            if any(isinstance(n, Layer) for n in order[here:read]):
                order.insert(read, node)
                del order[here]
    return order


def _last(nodes: list[Node], fits: Callable[[Node], bool]) -> int:
    """The index of the last node that fits, or −1."""
    return max((i for i, n in enumerate(nodes) if fits(n)), default=-1)
