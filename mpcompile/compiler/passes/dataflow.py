"""Questions that passes ask of a graph: who writes a tensor, what is it made of, is it on a grid.

The fused operators see every tensor as a map (C, H, W): a sequence (C, L) is (C, 1, L), a vector (C,) is (C, 1, 1).
"""

from __future__ import annotations

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.graph import (
    Add,
    Affine,
    Clip,
    Concat,
    Conv,
    Dense,
    Graph,
    Interpolate,
    Larger,
    Mul,
    Node,
    Pooling,
    PRelu,
    Quantize,
    Quantizer,
    Rearrange,
    Reshape,
    Smaller,
    Smooth,
    Table,
    Transpose,
    View,
)

UNARY = (Affine, Clip, PRelu, Quantize, Smooth, Table)
BINARY = (Add, Larger, Mul, Smaller)
FUSED = (*UNARY, *BINARY, Conv, Dense, Interpolate, Pooling, View, Rearrange)
MOST_FUSED = 128
"""Operators by element, one after another, in one layer: far more than networks have, and no deeper than a stack is."""


def as_map(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(C, H, W) of a shape, or None where it has no or more than three axes."""
    match tuple(shape):
        case (c,):
            return c, 1, 1
        case (c, length):
            return c, 1, length
        case (c, h, w):
            return c, h, w
    return None


class Dataflow:
    """A view of one graph; it holds no state that a change of the graph would not spoil."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.producer = graph.producer()
        self._quantizer: dict[str, Quantizer | None] = {}
        for node in graph.nodes:  # in order: what a grid is passed on from is known
            self._quantizer.update((t, self._find_quantizer(node)) for t in node.outputs)

    def map_of(self, tensor: str, node: Node) -> tuple[int, int, int]:
        """(C, H, W) of `tensor`. Raises ModelError naming `node`, which computes on it."""
        shape = as_map(self.graph.types[tensor].shape)
        if shape is None:
            raise ModelError(
                f"node {node.name} ({node.op}) works on {tensor} of shape "
                f"{self.graph.types[tensor].shape}: (C,), (C, L) or (C, H, W) would be accepted"
            )
        return shape

    def origin(self, tensor: str) -> str:
        """The tensor itself, or the one that it renames: reshapes between (C,), (C, 1) and (C, 1, 1) move nothing."""
        while isinstance(node := self.producer.get(tensor), Reshape):
            before, after = (as_map(self.graph.types[t].shape) for t in (node.inputs[0], tensor))
            if before is None or before != after:
                break
            tensor = node.inputs[0]
        return tensor

    def slices(self, node: Conv | Dense) -> list[str]:
        """The tensors whose channels, one after another, are what `node` contracts: a concat, and below a dense layer a
        flatten too, is taken apart."""
        return self._slices(node.inputs[0], isinstance(node, Dense))

    def _slices(self, tensor: str, flat: bool) -> list[str]:
        tensor = self.origin(tensor)
        node = self.producer.get(tensor)
        if isinstance(node, Concat):
            return [s for t in node.inputs for s in self._slices(t, flat)]
        if flat and isinstance(node, Reshape) and as_map(self.graph.types[node.inputs[0]].shape):
            return self._slices(node.inputs[0], True)
        return [tensor]

    def quantizer(self, tensor: str) -> Quantizer | None:
        """The quantizer on whose grid every value of `tensor` lies, or None."""
        return self._quantizer.get(tensor)

    def on_grid(self, tensor: str) -> Quantizer:
        """The quantizer of a tensor that is known to lie on a grid."""
        found = self.quantizer(tensor)
        assert found is not None, f"{tensor} lies on no grid"
        return found

    def _find_quantizer(self, node: Node) -> Quantizer | None:
        match node:
            case Quantize() | Table():
                return node.quantizer
            case Pooling(kind="max") | Reshape() | Transpose() | View() | Rearrange():
                return self.quantizer(node.inputs[0])
            case Concat() | Larger() | Smaller():
                found = {self.quantizer(t) for t in node.inputs}
                return found.pop() if len(found) == 1 else None
            case Clip():
                before = self.quantizer(node.inputs[0])
                return before if before and all(_on_grid(bound, before) for bound in (node.lo, node.hi)) else None
        return None


def _on_grid(bound: float, quantizer: Quantizer) -> bool:
    """Whether clipping at `bound` leaves values on the grid: it is infinite, or a value of the grid."""
    if np.isinf(bound):
        return True
    q = bound / quantizer.scale
    level = (round(q) - quantizer.grid.lo) / quantizer.grid.step
    return abs(q - round(q)) < 1e-6 and level == int(level) and 0 <= level < quantizer.grid.levels
