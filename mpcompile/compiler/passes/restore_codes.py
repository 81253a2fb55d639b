"""Quantizes again what went through a reshape or transpose in float, for the contractions, pools, tables, views and
rearrangements that read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mpcompile.compiler.passes.base import Pass, fresh, with_nodes
from mpcompile.compiler.passes.dataflow import FUSED, Dataflow
from mpcompile.ir.graph import (
    Concat,
    Conv,
    Dense,
    Graph,
    Interpolate,
    Pooling,
    Quantize,
    Quantizer,
    Rearrange,
    Reshape,
    Table,
    TensorType,
    View,
)


@dataclass(frozen=True)
class RestoreCodes(Pass):
    """Before: a contraction may read a quantized tensor that was moved by an operator which no layer computes (Reshape,
    Transpose).

    After: in between stands a Quantize on the same grid, to the nearest level, which changes no value. So what every
    contraction reads, concats and flattens taken apart, is the output of an operator that layers compute.
    """

    name: ClassVar[str] = "restore_codes"

    def apply(self, graph: Graph) -> Graph:
        flow, types, nodes = Dataflow(graph), dict(graph.types), []
        restored: dict[str, str] = {}
        moved: set[str] = set()
        for node in graph.nodes:
            if isinstance(node, (Conv, Dense)):
                moved.update(flow.slices(node))
            elif isinstance(node, (Interpolate, Pooling, Rearrange, Table, View)):
                moved.add(flow.origin(node.inputs[0]))
        moved = {t for t in moved if not isinstance(flow.producer.get(t), (*FUSED, type(None))) and flow.quantizer(t)}
        for node in graph.nodes:
            if isinstance(
                node, (Conv, Dense, Interpolate, Pooling, Rearrange, Table, View, Concat, Reshape)
            ):  # of the last: `slices`
                node = replace(node, inputs=[restored.get(t, t) for t in node.inputs])
            nodes.append(node)
            for t in node.outputs:
                if t in moved:
                    again = restored[t] = fresh(types, t + ".codes")
                    quantizer = nearest(flow.on_grid(t))
                    types[again] = TensorType(types[t].shape, quantizer)
                    nodes.append(Quantize(node.name, [t], [again], quantizer))
        return with_nodes(graph, nodes, types)


def nearest(quantizer: Quantizer) -> Quantizer:
    """The same grid, for values that are on it already but for float32 rounding."""
    return quantizer if quantizer.rounding == "sign" else replace(quantizer, rounding="half_even")
