"""What a bundle says about each of its layers, for `inspect`, `profile` and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpcompile.ir.graph import FloatOp, Graph, Node
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer

if TYPE_CHECKING:
    from mpcompile.compiler.pipeline import Planned


def layer_rows(planned: Planned) -> list[dict]:
    """One row a node of the graph, in order.

    A layer: name, op "Layer", source (names of the fused nodes), shape [O, HO, WO], macs, tile, tile_source (from:
    default, record, transferred or given; gain and cpu of a record), `parts` (one a contraction: input, family, kernel
    [O, C/groups, KH, KW], strides, groups, macs, weight_grid, activation_grid) and `outputs`. Any other
    node: name, op, shape, outputs, and of a float operator `reason`: why it is none on integers. An output: tensor,
    formats, grid (null for float32).
    """
    return [_row(node, planned) for node in planned.graph.nodes]


def macs(part: ContractPart, shape: tuple[int, int, int]) -> int:
    """Multiplications of weights with activations, those with padding included."""
    return int(np.prod(part.q.shape, dtype=np.int64)) * int(shape[1]) * int(shape[2])


def _row(node: Node, planned: Planned) -> dict:
    graph = planned.graph
    outputs = [
        {
            "tensor": t,
            "formats": [b.key.removeprefix(f"{t}:") for b in planned.assignment.buffers.get(t, [])],
            "grid": _grid(graph, t),
        }
        for t in node.outputs
    ]
    if not isinstance(node, Layer):
        op, told = (node.op_type, {"reason": node.reason}) if isinstance(node, FloatOp) else (node.op, {})
        shape = list(graph.types[node.outputs[0]].shape)
        return {"name": node.name, "op": op, "shape": shape, "outputs": outputs, **told}
    families = planned.assignment.families.get(node.name, {})
    parts = [
        _part(part, node, families[i, n], graph)
        for i, term in enumerate(node.terms)
        if isinstance(term, ContractTerm)
        for n, part in enumerate(term.parts)
    ]
    return {
        "name": node.name,
        "op": "Layer",
        "source": list(node.source),
        "shape": [int(n) for n in node.shape],
        "macs": sum(p["macs"] for p in parts),
        "tile": planned.lowered[node.name].tile,
        "tile_source": planned.lowered[node.name].tile_source,
        "parts": parts,
        "outputs": outputs,
    }


def _part(part: ContractPart, node: Layer, family: str, graph: Graph) -> dict:
    return {
        "input": part.input,
        "family": family,
        "kernel": list(part.q.shape),
        "strides": [int(n) for n in part.strides],
        "groups": int(part.groups),
        "macs": macs(part, node.shape),
        "weight_grid": part.grid.to_json(),
        "activation_grid": _grid(graph, part.input),
    }


def _grid(graph: Graph, tensor: str) -> dict | None:
    grid = graph.types[tensor].grid
    return grid.to_json() if grid else None
