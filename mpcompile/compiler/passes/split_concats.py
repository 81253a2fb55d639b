"""op(Concat(x, y)) becomes Concat(op(x), op(y)): concats sink to the contractions, whose weights are then split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import ClassVar

import numpy as np

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.ir.graph import (
    Affine,
    Along,
    Clip,
    Concat,
    Conv,
    Graph,
    Interpolate,
    Node,
    Pooling,
    PRelu,
    Quantize,
    QuantizedWeight,
    Smooth,
    Table,
    TensorType,
    View,
)


@dataclass(frozen=True)
class SplitConcats(Pass):
    """After: no operator that treats channels apart reads a Concat: Affine, Clip, PRelu, Quantize, Smooth, Table,
    Interpolate, Pooling, a View that picks its channels in order, and a grouped Conv whose groups do not cross from one
    slice to the next. No Concat reads a Concat.

    Values do not change.
    """

    name: ClassVar[str] = "split_concats"

    def apply(self, graph: Graph) -> Graph:
        types, nodes = dict(graph.types), []
        made: dict[str, Concat] = {}
        for node in graph.nodes:
            source = made.get(node.inputs[0]) if node.inputs else None
            if isinstance(node, Concat):
                node = replace(
                    node, inputs=[t for name in node.inputs for t in (made[name].inputs if name in made else [name])]
                )
            elif source is not None and (parts := _split(node, [types[t].shape[0] for t in source.inputs])):
                slices = []
                for i, (part, tensor) in enumerate(zip(parts, source.inputs)):
                    if part is None:
                        continue
                    name = fresh(types, f"{node.outputs[0]}.slice{i}")
                    channels = types[tensor].shape[0]
                    if isinstance(part, (Conv, View)):
                        channels = part.weight.q.shape[0] if isinstance(part, Conv) else part.along[0].size
                    of = types[node.outputs[0]]
                    types[name] = TensorType((channels, *of.shape[1:]), of.quantizer)
                    nodes.append(replace(part, inputs=[tensor], outputs=[name]))
                    slices.append(name)
                node = Concat(node.name, slices, list(node.outputs))
                if len(slices) == 1:
                    node = replace(nodes.pop(), outputs=node.outputs)
            if isinstance(node, Concat):
                made[node.outputs[0]] = node
            nodes.append(node)
        return with_nodes(graph, nodes, types)


def _split(node: Node, channels: list[int]) -> Sequence[Node | None] | None:
    """`node` for each slice of so many channels (ports still to be set), None for one that it does not read; or None
    where it does not split."""
    ends = list(accumulate(channels))
    ranges = list(zip([0, *ends], ends))
    match node:
        case Clip() | Quantize() | Smooth() | Table() | Interpolate() | Pooling():
            return [node] * len(channels)
        case Affine():
            return [replace(node, a=_part(node.a, r), b=_part(node.b, r)) for r in ranges]
        case PRelu():
            return [replace(node, slope=_part(node.slope, r)) for r in ranges]
        case View():
            channels_of = node.along[0]
            in_order = isinstance(channels_of, Along) and channels_of.step == channels_of.repeat == 1
            return [_split_view(node, *span) for span in ranges] if in_order else None
        case Conv() if node.groups > 1:
            return _split_conv(node, ranges)
    return None


def _split_view(node: View, start: int, end: int) -> View | None:
    """What it picks, in order, of channels start..end−1."""
    channels, *rest = node.along
    assert isinstance(channels, Along), "channels in order are no list"
    first, last = max(channels.start, start), min(channels.start + channels.size, end)
    return replace(node, along=(Along(last - first, first - start), *rest)) if first < last else None


def _part(c, span: tuple[int, int]):
    return c if np.size(c) == 1 else c[slice(*span)]


def _split_conv(node: Conv, ranges) -> list[Conv] | None:
    """Each slice's own groups; None where a group reads two slices."""
    o, c = node.weight.q.shape[0] // node.groups, node.weight.q.shape[1]
    if any(end % c for _, end in ranges):
        return None
    parts = []
    for start, end in ranges:
        rows = start // c * o, end // c * o
        w = QuantizedWeight(node.weight.q[slice(*rows)], node.weight.grid, _part(node.weight.scale, rows))
        bias = None if node.bias is None else _part(node.bias, rows)
        parts.append(replace(node, weight=w, bias=bias, groups=(end - start) // c))
    return parts
