"""What names a layer's shape in the records: readable, and equal for layers whose best schedules are the same.

    {"out": [128, 28, 28], "parts": [{"family": "popcount", "in": [128, 28, 28], "kernel": [3, 3], "strides": [1, 1],
     "groups": 1, "step": "1x2 planes"}], "reads": [], "epilogue": 5, "writes": ["planes2", "sums"]}

Weights, scales, grids' offsets and paddings are not in it. No TVM here.
"""

from __future__ import annotations

import json
from math import log2, prod

from mpcompile.ir.formats import Buffer
from mpcompile.kernels.families import family
from mpcompile.kernels.spec import ContractSpec, LayerSpec, PartSpec, PoolSpec

FARTHEST = 2.0
"""Shapes farther from each other than this (`distance`, in octaves) tell nothing of each other."""


def layer_key(spec: LayerSpec) -> dict:
    """The identity of a layer's shape, bits and forms."""
    parts = [_part(p) for p in spec.parts]
    reads = [_read(t) for t in spec.terms if not isinstance(t, ContractSpec)]
    writes = [_form(b) for o in spec.outputs for b in o.buffers]
    return {"out": list(spec.shape), "parts": parts, "reads": reads, "epilogue": len(spec.ops), "writes": writes}


def text_of(key: dict) -> str:
    """One string of a key."""
    return json.dumps(key, sort_keys=True)


def title(key: dict) -> str:
    """A key in few letters, for tables: "popcount 1x2 planes 128×28×28 3×3"."""
    if not key["parts"]:
        return " ".join([*key["reads"], "→", "×".join(map(str, key["out"])), "+".join(key["writes"])])
    first = key["parts"][0]
    stride = f" /{first['strides'][0]}" if max(first["strides"]) > 1 else ""
    more = f" +{len(key['parts']) - 1}" if len(key["parts"]) > 1 else ""
    return (
        f"{first['family']} {first['step']} {'×'.join(map(str, first['in']))}→{key['out'][0]} "
        f"{'×'.join(map(str, first['kernel']))}{stride}{more}"
    )


def distance(a: dict, b: dict) -> float | None:
    """Octaves between two shapes; None where family, bits or kind of layer differ."""
    if _kind(a) != _kind(b):
        return None
    total = _octaves(a["out"][0], b["out"][0]) + _octaves(prod(a["out"][1:]), prod(b["out"][1:])) / 2
    for p, q in zip(a["parts"], b["parts"]):
        total += _octaves(p["in"][0], q["in"][0]) / len(a["parts"])
        total += _octaves(prod(p["kernel"]), prod(q["kernel"])) / 2 + 0.5 * (p["strides"] != q["strides"])
    return total + 0.25 * (a["writes"] != b["writes"]) + 0.25 * (a["reads"] != b["reads"])


def _kind(key: dict) -> tuple:
    """What must be equal: families and steps, pointwise or not, groups or not, and the kinds of what is read beside."""
    parts = tuple((p["family"], p["step"], prod(p["kernel"]) > 1, p["groups"] > 1) for p in key["parts"])
    return parts, () if parts else tuple(key["reads"])


def _octaves(a: int, b: int) -> float:
    return abs(log2(a / b))


def _part(part: PartSpec) -> dict:
    return {
        "family": part.family,
        "step": family(part.family).step(part),
        "in": list(part.data.shape),
        "kernel": list(part.kernel),
        "strides": list(part.strides),
        "groups": part.groups,
    }


def _read(term) -> str:
    if isinstance(term, PoolSpec):
        return f"{term.kind} {'×'.join(map(str, term.kernel))} of {_form(term.data)}"
    return _form(term.data)


def _form(buffer: Buffer) -> str:
    return f"planes{buffer.known_grid.planes}" if buffer.format == "planes" else buffer.format
