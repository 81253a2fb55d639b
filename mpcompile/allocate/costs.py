"""A budget's cost as a sum over choices: what the integer program adds up.

The latency table's prediction is a constant, a number for each (layer, bits of its weights, bits of its input), and one for
each (tensor, its bits, the formats that its readers want): exactly, since `LatencyTable.predict` is that sum. BitOps and
bytes are numbers for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mpcompile.allocate.wiring import Wired
from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.latency.table import LatencyTable

Assignment = Mapping[str, BitPair]
"""Layer → its bits."""
FORMATS = ("planes", "codes", "codes+planes")


@dataclass
class Costs:
    """`layers`: layer → bits → cost. `packs`: tensor → (its bits, formats) → cost, where that depends on formats. `form`:
    layer → bits → "planes" or "codes", of layers that read such a tensor."""

    unit: str
    constant: float = 0.0
    layers: dict[str, dict[BitPair, float]] = field(default_factory=dict)
    packs: dict[str, dict[tuple[int, str], float]] = field(default_factory=dict)
    form: dict[str, dict[BitPair, str]] = field(default_factory=dict)

    def of(self, assignment: Assignment, places: Wired) -> float:
        """The whole cost."""
        total = self.constant + sum(self.layers[k][pair] for k, pair in assignment.items() if k in self.layers)
        for tensor, by in self.packs.items():
            readers = places.readers(tensor)
            forms = {self.form[k][assignment[k]] for k in readers}
            total += by[assignment[readers[0]].activations, "+".join(sorted(forms))]
        return total


Choices = Mapping[str, tuple[BitPair, ...]]
"""Layer → the pairs of bits to choose among."""


def bitops(places: Wired, choices: Choices) -> Costs:
    """Σ MACs·w·a of all layers."""
    return Costs(
        "BitOps",
        layers={k: {p: float(places.layers[k].macs * p[0] * p[1]) for p in pairs} for k, pairs in choices.items()},
    )


def weight_bytes(places: Wired, choices: Choices, beside: int) -> Costs:
    """Weights at their bits; `beside`: bytes of all other constants, which stay float32."""
    return Costs(
        "bytes",
        float(beside),
        {k: {p: places.layers[k].weights * p.weights / 8 for p in pairs} for k, pairs in choices.items()},
    )


def latency(places: Wired, choices: Choices, table: LatencyTable, quantizer: Mapping[str, str]) -> Costs:
    """Seconds, by a table of the quantized network. `quantizer`: tensor → its quantizer's name there. Raises UsageError
    where the table lacks a layer or bits."""
    lacking = [k for k in choices if k not in table.contractions]
    if lacking:
        raise UsageError(
            f"the latency table of {table.model} has no layer {lacking[0]}: it was measured on another network"
        )
    reads = {k: {quantizer[t] for t in places.layers[k].tensors} for k in choices}
    for k, names in reads.items():
        if set(table.contractions[k].quantizers) != names:
            raise UsageError(
                f"in the latency table of {table.model} layer {k} reads {', '.join(table.contractions[k].quantizers)}, in "
                f"the network {', '.join(sorted(names))}"
            )
    found = Costs("s", table.beside + sum(row.base for row in table.layers.values()))
    found.layers = {k: dict.fromkeys(pairs, 0.0) for k, pairs in choices.items()}
    found.form = {k: {p: table.format(k, *p) for p in pairs} for k, pairs in choices.items()}
    tensor = {q: t for t, q in quantizer.items()}
    for row in table.layers.values():
        counted: set[str] = set()
        for name in row.reads:
            contraction = table.contractions[name]
            moved = not set(contraction.quantizers) <= counted
            for pair in found.layers[name]:
                own = table.latency(name, contraction.w, pair.activations)
                found.layers[name][pair] += table.latency(name, *pair) - own + (own - row.base if moved else 0.0)
            counted |= set(contraction.quantizers)
        for q, cells in row.views.items():
            if q in tensor and q not in counted and q not in row.packs and (readers := places.readers(tensor[q])):
                for pair in found.layers[readers[0]]:
                    found.layers[readers[0]][pair] += _cell(cells, q, pair.activations) - row.base
        for q, cells in row.packs.items():
            if q not in tensor or not places.readers(tensor[q]):
                continue
            own = table.quantizers[q][1]
            by = found.packs.setdefault(tensor[q], {})
            for a in {p.activations for k in places.readers(tensor[q]) for p in choices[k]}:
                cell = _cell(cells, q, a)
                for formats in FORMATS:
                    by[a, formats] = by.get((a, formats), 0.0) + cell.get(formats or own, max(cell.values())) - row.base
    return found


def _cell(cells, quantizer: str, a: int):
    if a not in cells:
        raise UsageError(
            f"the latency table has no A{a} of quantizer {quantizer}: it has {', '.join(f'A{b}' for b in sorted(cells))}"
        )
    return cells[a]
