"""Layers as rows of a table, the same for a bundle's manifest and for a model."""

from __future__ import annotations

from collections.abc import Sequence

from mpcompile.cli import console

EXACT = ("Layer", "Reshape", "Transpose", "Flatten")
"""What a row's operator is where it computes no float32, beside float operators."""
COLUMNS = ("layer", "shape", "kernel", "weights", "inputs", ">MAC", "family", "schedule", "writes")


def layer_table(layers: Sequence[dict]) -> None:
    """Rows as compiler/manifest.py writes them; a layer with several contractions takes a row for each."""
    rows = []
    for layer in layers:
        writes = ", ".join(
            " ".join([bits(out["grid"]), *(["as", "+".join(out["formats"])] if out["formats"] else [])])
            for out in layer["outputs"]
        )
        first, *rest = [_part(part) for part in layer.get("parts", [])] or [("", "", "", "", "")]
        rows.append((layer["name"], "×".join(map(str, layer["shape"])), *first, _schedule(layer), writes))
        rows += [("", "", *part, "", "") for part in rest]
    console.table(COLUMNS, rows)


def float_table(layers: Sequence[dict]) -> None:
    """The float operators among these rows, each with the reason; nothing where there are none. Of a concat of what only
    float operators read, and in bundles of older versions, there is no reason."""
    rows = [(r["name"], r["op"], r.get("reason") or "") for r in layers if r["op"] not in EXACT]
    if rows:
        console.table(("runs in float", "operator", "because"), rows)


def bits(grid: dict | None) -> str:
    """A grid (JSON) in a few letters: its planes, and what they stand for: "1 ±1", "2 odd", "4 0..15"."""
    if grid is None:
        return "float32"
    planes, lo, hi = len(grid["plane_weights"]), grid["lo"], grid["hi"]
    if grid["step"] == 2 and lo == -hi:
        return "1 ±1" if planes == 1 else f"{planes} odd"
    return f"{planes} {lo}..{hi}" + (f" step {grid['step']}" if grid["step"] > 1 else "")


def _schedule(layer: dict) -> str:
    """The tile of a compiled layer, and where it is from where that is no default."""
    if not layer.get("tile"):
        return ""
    source = layer.get("tile_source", {}).get("from", "default")
    return console.tile(layer["tile"]) + (f" ({source})" if source != "default" else "")


def _part(part: dict) -> tuple[str, str, str, str, str]:
    o, c, kh, kw = part["kernel"]
    kernel = f"{c * part['groups']}→{o} {kh}×{kw}"
    if tuple(part["strides"]) != (1, 1):
        kernel += f" /{'×'.join(map(str, dict.fromkeys(part['strides'])))}"
    if part["groups"] > 1:
        kernel += f" in {part['groups']} groups"
    return kernel, bits(part["weight_grid"]), bits(part["activation_grid"]), console.count(part["macs"]), part["family"]
