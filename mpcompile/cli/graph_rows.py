"""A graph of layers as rows like those of a bundle's manifest, with the families that the cost model expects."""

from __future__ import annotations

import numpy as np

from mpcompile.ir.graph import FloatOp, Graph, Node
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer
from mpcompile.kernels.select import candidates
from mpcompile.targets import Target


def graph_rows(graph: Graph, target: Target) -> list[dict]:
    """One row a node, in order; fields as in compiler/manifest.py, `family` as expected before formats are chosen."""
    return [_row(node, graph, target) for node in graph.nodes]


def _row(node: Node, graph: Graph, target: Target) -> dict:
    outputs = [{"tensor": t, "formats": [], "grid": _grid(graph, t)} for t in node.outputs]
    if not isinstance(node, Layer):
        op, told = (node.op_type, {"reason": node.reason}) if isinstance(node, FloatOp) else (node.op, {})
        shape = list(graph.types[node.outputs[0]].shape)
        return {"name": node.name, "op": op, "shape": shape, "outputs": outputs, **told}
    parts = [
        _part(part, node, graph, target) for term in node.terms if isinstance(term, ContractTerm) for part in term.parts
    ]
    return {
        "name": node.name,
        "op": "Layer",
        "source": list(node.source),
        "shape": list(node.shape),
        "macs": sum(p["macs"] for p in parts),
        "parts": parts,
        "outputs": outputs,
    }


def _part(part: ContractPart, node: Layer, graph: Graph, target: Target) -> dict:
    grid = graph.types[part.input].grid
    assert grid is not None, f"{node.name} multiplies {part.input}, which is not quantized"
    found = candidates(part, grid, target, node.shape[1:])
    return {
        "input": part.input,
        "family": found[0][0] if found else "none",
        "kernel": list(part.q.shape),
        "strides": list(part.strides),
        "groups": part.groups,
        "macs": int(np.prod(part.q.shape, dtype=np.int64)) * node.shape[1] * node.shape[2],
        "weight_grid": part.grid.to_json(),
        "activation_grid": grid.to_json(),
    }


def _grid(graph: Graph, tensor: str) -> dict | None:
    grid = graph.types[tensor].grid
    return grid.to_json() if grid else None
