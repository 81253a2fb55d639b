"""Operators by element, one after another over the same codes, become one table: Sigmoid → Quantize → Mul by what the
Sigmoid read (SiLU) is a look-up in as many values as the codes have levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, with_nodes
from mpcompile.ir.graph import Add, Affine, Clip, Graph, Larger, Mul, Node, PRelu, Quantize, Smaller, Table
from mpcompile.reference.interpret import compute

MOST_LEVELS = 256
"""Of the codes that a table is made for."""


@dataclass(frozen=True, eq=False)
class Function:
    """A tensor as a function of the quantized tensor `root`: float32 `values` at each level of its grid. `tabled`: a
    Table is part of it."""

    root: str
    values: np.ndarray
    tabled: bool


@dataclass(frozen=True)
class FoldTables(Pass):
    """After: no operator by element whose constants are the same for all channels reads a Table that is on no grid; no
    Mul or Add reads two functions of the same codes of which one is a Table. They are Tables themselves. Real values are
    those that the operators give one after another, in float32.
    """

    name: ClassVar[str] = "fold_tables"

    def apply(self, graph: Graph) -> Graph:
        known: dict[str, list[Function]] = {}  # the nearest root first
        nodes = []
        for node in graph.nodes:
            found = [_after(node, read, graph) for read in _common(node, graph, known)]
            if found and found[0].tabled and not isinstance(node, Table):
                first, out = found[0], graph.types[node.outputs[0]]
                node = Table(node.name, [first.root], list(node.outputs), first.values, out.quantizer)
            if found:
                known[node.outputs[0]] = found
            nodes.append(node)
        return with_nodes(graph, nodes)


def _common(node: Node, graph: Graph, known: dict[str, list[Function]]) -> list[list[Function]]:
    """For each root that all of the node's inputs are functions of, the nearest first: what they are. [] where the node
    is not by element, or differs between channels."""
    if not _everywhere_the_same(node):
        return []
    first, *others = [_of(t, graph, known) for t in node.inputs]
    by_root = [{f.root: f for f in functions} for functions in others]
    return [[f, *(more[f.root] for more in by_root)] for f in first if all(f.root in more for more in by_root)]


def _of(tensor: str, graph: Graph, known: dict[str, list[Function]]) -> list[Function]:
    """What `tensor` is a function of: of itself, where it is on a grid; then of what lies behind that."""
    behind = known.get(tensor, [])
    quantizer = graph.types[tensor].quantizer
    if quantizer is None or quantizer.grid.levels > MOST_LEVELS:
        return behind
    values = (quantizer.grid.values * quantizer.scale).astype(np.float32)
    return [Function(tensor, values, False), *behind[:1]]


def _after(node: Node, read: list[Function], graph: Graph) -> Function:
    """`node` over functions of one root. A table is worth it for two operands, and where one is made already."""
    values = compute(node, [f.values for f in read], [graph.types[t] for t in node.inputs])
    tabled = isinstance(node, Table) or any(f.tabled for f in read)
    return Function(read[0].root, values, tabled or (len(read) > 1 and isinstance(node, Mul)))


def _everywhere_the_same(node: Node) -> bool:
    match node:
        case Quantize() | Clip() | Table() | Add() | Mul() | Larger() | Smaller():
            return True
        case Affine():
            return np.size(node.a) == 1 and np.size(node.b) == 1
        case PRelu():
            return np.size(node.slope) == 1
    return False
