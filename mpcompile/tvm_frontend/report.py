"""What the passes say: which operators became which layers, and why others stayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mpcompile.tvm_frontend.dataflow import NotMatched
from mpcompile.tvm_frontend.regions import Found


class Report:
    """Says to `say`, line by line, what a pass did; with `explain` also of each operator that stayed why it did."""

    def __init__(self, say: Callable[[str], None] | None, explain: bool):
        self.say, self.explain = say or (lambda line: None), explain

    def unread(self, function: str, reason: NotMatched) -> None:
        """A function that is left as it was."""
        if self.explain:
            self.say(f"{function}: left as it was: {reason}")

    def done(self, function: str, found: Found, layers: Mapping[str, Sequence[dict]]) -> None:
        """layers: region → rows as api.export_c gives them."""
        for line in rewritten(function, found, layers):
            self.say(line)
        if self.explain:
            for line in explained(found):
                self.say(line)


def rewritten(function: str, found: Found, layers: Mapping[str, Sequence[dict]]) -> Iterator[str]:
    """A line for each region, and one for each of its layers (rows as api.export_c gives them)."""
    if not found.regions:
        yield f"{function}: no quantized region"
    for region in found.regions:
        moving = sum(not call.constant for call in region.calls)
        rows = layers[region.name]
        yield f"{function}: {moving} operators are {region.name}, {len(rows)} layer{'s' * (len(rows) > 1)}"
        for row in rows:
            yield "  " + ", ".join(
                [
                    f"mpcompile.{operator_name(row)} {row['name']}",
                    *(f"{k} {v}" for k, v in grids(row).items()),
                    f"of {fused(row)}",
                ]
            )


def explained(found: Found) -> Iterator[str]:
    """A line for each operator that stayed."""
    for call, reason in found.left:
        yield f"  {call.name} ({call.op or 'no operator that is known'}) stays: {reason}"


def operator_name(row: dict) -> str:
    """What a row is called among our operators, without "mpcompile."."""
    parts = row.get("parts")
    if not parts:
        return "layer"
    rank = len(row["outputs"][0]["shape"])
    return {1: "bitserial_dense", 2: "bitserial_conv1d"}.get(rank, "bitserial_conv2d")


def dtype_of(out: dict) -> str:
    """A result's type: "uint2" for codes of two bits that are never negative."""
    grid = out["grid"]
    return "float32" if grid is None else f"{'u' * (grid['lo'] >= 0)}int{len(grid['plane_weights'])}"


def grids(row: dict) -> dict[str, str]:
    """Of a row's contractions: their kernels, weights, inputs and families, "+" between them."""
    parts = row.get("parts") or []
    told = {
        "kernel": [_kernel(part) for part in parts],
        "weights": [bits(part["weight_grid"]) for part in parts],
        "activations": [bits(part["activation_grid"]) for part in parts],
        "family": [part["family"] for part in parts],
    }
    return {key: " + ".join(dict.fromkeys(found) if key != "kernel" else found) for key, found in told.items() if found}


def fused(row: dict) -> str:
    """The names of the operators that a row is made of."""
    return " ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in row.get("source") or [row["name"]]))


def _kernel(part: dict) -> str:
    o, c, height, width = part["kernel"]
    return f"{c * part['groups']}->{o} {height}x{width}" + (
        f" in {part['groups']} groups" if part["groups"] > 1 else ""
    )


def bits(grid: Mapping | None) -> str:
    """A grid in a few letters: its planes, and its least and greatest integer."""
    if grid is None:
        return "float32"
    planes = len(grid["plane_weights"])
    return f"{planes} bit{'s' * (planes > 1)} {grid['lo']}..{grid['hi']}"
