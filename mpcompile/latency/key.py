"""What a layer taken out of its network is, as a hash, known before anything is lowered: equal keys are one measurement
on one device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractTerm, InterpolateTerm, Layer, RearrangeTerm, ViewTerm
from mpcompile.latency.subgraph import Subgraph


def key_of(subgraph: Subgraph, identity: Mapping[str, str]) -> str:
    """What a subgraph's time depends on, as a hash: shapes, grids, formats and steps, no names and no values of
    weights."""
    graph = subgraph.graph
    layers = [n for n in graph.nodes if isinstance(n, Layer)]
    number = {t: i for i, t in enumerate(dict.fromkeys(t for n in graph.nodes for t in (*n.inputs, *n.outputs)))}
    nodes = [
        [
            n.name == subgraph.layer,
            n.shape,
            [_term(t, number) for t in n.terms],
            [_step(s) for s in n.epilogue],
            [[number[r.name], r.value, _grid(r.quantizer and r.quantizer.grid)] for r in n.results],
            [[*part, family] for part, family in sorted(subgraph.families.get(n.name, {}).items())],
        ]
        for n in layers
    ]
    types = [[graph.types[t].shape, _grid(graph.types[t].grid)] for t in number]
    what = [
        nodes,
        types,
        [number[t] for t in graph.inputs],
        [number[t] for t in graph.outputs],
        sorted(identity.items()),
    ]
    return hashlib.sha256(json.dumps(what, default=_plain).encode()).hexdigest()[:32]


def _grid(grid: Grid | None):
    return grid.to_json() if grid else None


def _term(term, number: Mapping[str, int]) -> list:
    if isinstance(term, ContractTerm):
        return [
            [number[p.input], p.q.shape, p.grid.to_json(), p.strides, p.pads, p.dilations, p.groups] for p in term.parts
        ]
    if isinstance(term, ViewTerm):
        rest = [] if term.along is None else [vars(a) for a in term.along]
    elif isinstance(term, RearrangeTerm):
        rest = [term.order.digits, term.whole, [vars(a) for a in term.along]]
    elif isinstance(term, InterpolateTerm):
        rest = [[a.first.tolist(), a.second.tolist()] for a in (term.lines, term.columns)]
    else:
        rest = [term.kind, term.kernel, term.strides, term.pads]
    return [type(term).__name__, number[term.input], *rest]


def _step(step) -> list:
    """An epilogue instruction; of constants only how many there are."""
    return [
        type(step).__name__,
        *(
            ["const", v.size] if isinstance(v, np.ndarray) else v.to_json() if isinstance(v, Grid) else v
            for v in vars(step).values()
        ),
    ]


def _plain(value):
    return value.item() if hasattr(value, "item") else list(value)
