"""What the passes say: which operators became which layers, and why others stayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mpcompile.tvm_frontend.regions import Found


def rewritten(function: str, found: Found, layers: Mapping[str, Sequence[dict]]) -> Iterator[str]:
    """A line for each region, and one for each of its layers (rows as a bundle's manifest has them)."""
    if not found.regions:
        yield f"{function}: no quantized region"
    for region in found.regions:
        moving = sum(not call.constant for call in region.calls)
        yield f"{function}: {moving} operators are {region.name}, {len(layers[region.name])} layers"
        for row in layers[region.name]:
            yield f"  {layer_text(row)}"


def layer_text(row: dict) -> str:
    """For example "bitserial_conv2d 64→64 3×3 w2 -2..1 a2 0..3 popcount: conv2d.3 batch_norm.4 relu.6 quantize.7"."""
    parts = [
        f"{operator_of(part)} {kernel_text(part)} weights {bits(part['weight_grid'])}, inputs {bits(part['activation_grid'])}, "
        f"{part['family']}"
        for part in row.get("parts", [])
    ]
    fused = ", ".join(row.get("source", [])) or row["name"]
    return f"{' + '.join(parts) or row['op'].lower()}: {fused}"


def operator_of(part: dict) -> str:
    """mpcompile's name for a contraction."""
    height, width = part["kernel"][2:]
    return "bitserial_dense" if (height, width) == (1, 1) and part.get("pixels") == 1 else "bitserial_conv2d"


def kernel_text(part: dict) -> str:
    o, c, height, width = part["kernel"]
    return f"{c * part['groups']}→{o} {height}×{width}"


def bits(grid: Mapping | None) -> str:
    """A grid in a few letters: its planes, and its least and greatest integer."""
    if grid is None:
        return "float32"
    return f"{len(grid['plane_weights'])} bits {grid['lo']}..{grid['hi']}"


def explained(found: Found) -> Iterator[str]:
    """A line for each operator that stayed."""
    for call, reason in found.left:
        yield f"  {call.name} ({call.op or 'no operator that is known'}) stays: {reason}"
