"""Rearrange → Quantize becomes Quantize → Rearrange where a layer computes what is rearranged: that layer quantizes it, and
what moves are codes. Where no layer computes it, Quantize → Rearrange becomes Rearrange → Quantize, one layer. Two orders
in a row are one, or none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.compiler.passes.dataflow import BINARY, FUSED, UNARY
from mpcompile.compiler.passes.fold_transposes import rearrange
from mpcompile.ir.graph import Affine, Along, FloatOp, Graph, Node, PRelu, Rearrange, TensorType, View


@dataclass(frozen=True)
class SinkRearranges(Pass):
    """After: no operator by element reads a Rearrange of what a layer computes, unless its constants differ between
    channels that the Rearrange mixes; of two operands one may be such. No Rearrange reads operators by element, the same
    for all channels, over what no layer computes. No Rearrange of all elements reads another, no View a Rearrange of all;
    no two are the same. Values do not change.
    """

    name: ClassVar[str] = "sink_rearranges"

    def apply(self, graph: Graph) -> Graph:
        if not any(isinstance(n, Rearrange) for n in graph.nodes):
            return graph
        work = _Sinking(graph)
        for node in graph.nodes:
            work.take(node)
        return with_nodes(graph, work.nodes, work.types)


class _Sinking:
    def __init__(self, graph: Graph):
        self.types, self.nodes = dict(graph.types), []
        self.outputs = graph.outputs
        self.writers: dict[str, Node] = {}
        self.same: dict[str, str] = {}
        self.known: dict[tuple, str] = {}

    def put(self, node: Node, key: object = None) -> None:
        """Writes `node`; nothing where one of the same `key`, or the same Rearrange, is there, whose output is read
        instead."""
        if isinstance(node, Rearrange):
            key = (node.order, node.whole, node.along)
        if key is not None and node.outputs[0] not in self.outputs:
            found = self.known.setdefault((*node.inputs, key), node.outputs[0])
            if found != node.outputs[0]:
                self.same[node.outputs[0]] = found
                return
        self.nodes.append(node)
        self.writers.update((t, node) for t in node.outputs)

    def take(self, node: Node) -> None:
        """`node` as it is to be, and what is needed in front of it."""
        node = replace(node, inputs=[self.same.get(t, t) for t in node.inputs])
        if isinstance(node, Rearrange):
            return self.place(node)
        if isinstance(node, View) and (of := self.rearranged(node.inputs[0])) and _whole(of):
            return self.put(Rearrange(node.name, of.inputs, node.outputs, of.order, of.whole, node.along))
        if isinstance(node, UNARY) and (of := self.sunk(node.inputs[0])):
            if inner := self.inside(node, of):
                return self.below(inner, of, node, of.inputs)
        if isinstance(node, BINARY):
            of = self.sunk(node.inputs[0]) or self.sunk(node.inputs[1])
            inputs = [self.undone(t, of) for t in node.inputs] if of else [None]
            if of and None not in inputs:
                return self.below(node, of, node, inputs)
        self.put(node)

    def place(self, node: Rearrange) -> None:
        """Writes it where it is least: above operators by element over what no layer computes, over another's input."""
        chain = self.hoisted(node)
        if chain:
            self.above(node, chain)
        else:
            self.put(self.joined(node))

    def below(self, inner: Node, of: Rearrange, node: Node, inputs) -> None:
        """`inner` over `inputs`, then the Rearrange, which writes what `node` wrote."""
        (output,) = node.outputs
        name = fresh(self.types, f"{output}.before")
        self.types[name] = TensorType(self.types[inputs[0]].shape, self.types[output].quantizer)
        self.put(replace(inner, inputs=list(inputs), outputs=[name]))
        self.put(replace(of, inputs=[name], outputs=[output]))

    def hoisted(self, node: Rearrange) -> list[Node]:
        """The operators by element over a tensor that no layer computes, one after another, which `node` reads; [] where
        there are none."""
        found: list[Node] = []
        tensor = node.inputs[0]
        while isinstance(by := self.writers.get(tensor), UNARY) and _everywhere_the_same(by):
            found.insert(0, by)
            tensor = by.inputs[0]
        return found if found and isinstance(self.writers.get(tensor), (FloatOp, type(None))) else []

    def above(self, node: Rearrange, chain: list[Node]) -> None:
        """`chain` over a Rearrange."""
        tensor = chain[0].inputs[0]
        for step in (node, *chain):
            output = node.outputs[0] if step is chain[-1] else fresh(self.types, f"{step.outputs[0]}.ahead")
            of = tensor if step is node else step.outputs[0]
            self.types[output] = TensorType(self.types[node.outputs[0]].shape, self.types[of].quantizer)
            self.put(replace(step, inputs=[tensor], outputs=[output]), (id(step), node.order, node.whole, node.along))
            tensor = self.same.get(output, output)

    def rearranged(self, tensor: str) -> Rearrange | None:
        node = self.writers.get(tensor)
        return node if isinstance(node, Rearrange) else None

    def sunk(self, tensor: str) -> Rearrange | None:
        """The Rearrange that writes `tensor`, if a layer computes what it reads."""
        of = self.rearranged(tensor)
        return of if of and isinstance(self.writers.get(of.inputs[0]), FUSED) else None

    def joined(self, node: Rearrange) -> Node:
        """Over what another Rearrange of all elements reads, if it reads one."""
        of = self.rearranged(node.inputs[0])
        order = of.order.then(node.order) if of and _whole(of) else None
        if of is None or order is None:
            return node
        if _whole(node):
            return rearrange(node.name, of.inputs[0], node.outputs[0], order, node.whole)
        return replace(node, inputs=of.inputs, order=order)

    def undone(self, tensor: str, of: Rearrange) -> str | None:
        """A tensor that `of` makes `tensor` of; None where there is none."""
        other = self.rearranged(tensor)
        if other and (other.order, other.whole, other.along) == (of.order, of.whole, of.along):
            return other.inputs[0]
        if not _whole(of):
            return None
        shape = self.types[of.inputs[0]].shape
        name = fresh(self.types, f"{tensor}.back")
        self.types[name] = TensorType(shape, self.types[tensor].quantizer)
        back = rearrange(of.name, tensor, name, of.order.inverse(), shape)
        self.place(back) if isinstance(back, Rearrange) else self.put(back)
        return self.same.get(name, name)

    def inside(self, node: Node, of: Rearrange) -> Node | None:
        """`node` as it is over what `of` reads; None where it differs between channels that `of` mixes."""
        match node:
            case Affine() if np.size(node.a) > 1 or np.size(node.b) > 1:
                channels = self.channels(of)
                return None if channels is None else replace(node, a=_of(node.a, channels), b=_of(node.b, channels))
            case PRelu() if np.size(node.slope) > 1:
                channels = self.channels(of)
                return None if channels is None else replace(node, slope=_of(node.slope, channels))
        return node

    def channels(self, of: Rearrange) -> np.ndarray | None:
        """For each channel of what `of` reads, the channel of the result that all of its elements come to, which is the
        first where none comes; None where they come to several."""
        shape = self.types[of.inputs[0]].shape
        to = np.arange(of.whole[0]).repeat(int(np.prod(of.whole[1:], dtype=np.int64)))
        came = np.empty(len(to), np.int64)
        came[of.order.indices()] = to
        rows = came.reshape(shape[0], -1)
        if (rows != rows[:, :1]).any() or of.along[0] != Along(of.whole[0]):
            return None
        return rows[:, 0]


def _everywhere_the_same(node: Node) -> bool:
    match node:
        case Affine():
            return np.size(node.a) == np.size(node.b) == 1
        case PRelu():
            return np.size(node.slope) == 1
    return True


def _of(constant: np.ndarray, channels: np.ndarray) -> np.ndarray:
    return constant if np.size(constant) == 1 else constant[channels]


def _whole(of: Rearrange) -> bool:
    """Whether it keeps all elements."""
    return of.along == tuple(map(Along, of.whole))
