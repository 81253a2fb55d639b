"""The latency table: what each layer of a network costs at other bitwidths, and so what any assignment of bits costs.

Every number is the measured time of a whole fused layer in which one thing differs from the model as it was given:

    LUT[layer][w, a_in, format]  the weights of convolution `layer` at w bits, its input at a_in, read so
    PACK[quantizer][a, formats]  a quantizer at a bits, its codes written in these formats, by the layer that has them

so that, for a fused layer with base time T, a bits on quantizer q and w on convolution k,

    T(assignment) = T + Σ_q (T_q[a] − T) + Σ_k (T_k[w, a] − T_k[own w, a])

and the network's time is the sum over its layers and a constant, with which it is exact for the model as it is:
operators that run in float, and the caches that a layer finds cold in the network but warm when it runs by itself. numpy
only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta

from mpcompile.errors import ModelError, UsageError
from mpcompile.files import atomic_path, validated
from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.latency.cache import Seconds

FORMAT = 2
LayerBits = Mapping[str, BitPair]
"""Convolution or dense layer, by its name in the model → bits of its weights and of its input."""


@dataclass
class LayerTimes:
    """Seconds of one fused layer, everything but the index as in the model.

    base; reads[k][w, a][format], of convolution k in it; packs[q][a][formats], of quantizer q that it computes, formats
    sorted and joined by +; views[q][a], of a quantizer that it only reads beside convolutions.
    """

    base: float
    reads: dict[str, dict[BitPair, dict[str, float]]] = field(default_factory=dict)
    packs: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    views: dict[str, dict[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Contraction:
    """A convolution or dense layer: the fused layer that it is part of, its own bits, the quantizers that it reads."""

    layer: str
    w: int
    a: int
    quantizers: tuple[str, ...]


@dataclass
class LatencyTable:
    """`bits` are those measured. `quantizers`: name → (own bits, own formats). `beside`: seconds
    of the whole network, as it is, less its layers'. `measured_on`: target, CPU, versions, threads."""

    model: str
    measured_on: dict[str, str]
    bits: BitCandidates
    contractions: dict[str, Contraction]
    quantizers: dict[str, tuple[int, str]]
    layers: dict[str, LayerTimes]
    beside: float = 0.0

    # -- queries -----------------------------------------------------------------------------------
    def latency(self, layer: str, w: int, a: int, form: str | None = None) -> float:
        """Seconds of the fused layer that holds convolution `layer`, with w-bit weights and an a-bit input; in the
        cheapest format, or in `form` ("planes", "codes"). Raises UsageError where that was not measured."""
        cell = self._cell(layer, w, a)
        if form is not None and form not in cell:
            raise UsageError(
                f"the latency table has no W{w}A{a} of {layer} read as {form}, which was too slow at fewer bits to be "
                f"measured at these: it has {', '.join(cell)}"
            )
        return cell[form] if form else min(cell.values())

    def format(self, layer: str, w: int, a: int) -> str:
        """The cheapest format for convolution `layer` to read its input in."""
        cell = self._cell(layer, w, a)
        return min(cell, key=lambda form: cell[form])

    def formats(self, assignment: LayerBits | None = None) -> dict[str, str]:
        """Quantizer → the formats that it is written in: what its readers want at these bits, joined by +."""
        return self._formats(*self._bits(assignment or {}))

    def pack(self, quantizer: str, a: int, formats: str | None = None) -> float:
        """Seconds more (or less) than in the model that writing `quantizer` at a bits in `formats` costs; 0 where none
        writes it. Raises UsageError where that was not measured."""
        own_a, own_formats = self.quantizers[quantizer]
        return sum(
            self._written(row.packs[quantizer], quantizer, a, formats or own_formats)
            - self._written(row.packs[quantizer], quantizer, own_a, own_formats)
            for row in self.layers.values()
            if quantizer in row.packs
        )

    def matrix(self, layer: str) -> np.ndarray:
        """float64 [len(bits.weights), len(bits.activations)]: LUT of convolution `layer` in seconds, for pᵀ·LUT·q."""
        return np.array([[self.latency(layer, w, a) for a in self.bits.activations] for w in self.bits.weights])

    def predict(self, assignment: LayerBits | None = None) -> float:
        """Seconds of the whole network; what is not assigned keeps the model's bits. Raises UsageError at an unknown
        layer, at bits that were not measured, and where two layers want different bits of the one quantizer that both
        read."""
        return sum(self.predict_layers(assignment or {}).values()) + self.beside

    def predict_layers(self, assignment: LayerBits) -> dict[str, float]:
        """The same for each fused layer."""
        weights, bits = self._bits(assignment)
        formats = self._formats(weights, bits)
        return {name: self._layer(row, weights, bits, formats) for name, row in self.layers.items()}

    # -- how -----------------------------------------------------------------------------------------
    def _bits(self, assignment: LayerBits) -> tuple[dict[str, int], dict[str, int]]:
        """(weight bits by contraction, bits by quantizer)"""
        weights = {k: c.w for k, c in self.contractions.items()}
        bits = {q: own for q, (own, _) in self.quantizers.items()}
        asked: dict[str, str] = {}
        for name, (w, a) in assignment.items():
            for q in self._contraction(name).quantizers:
                if q in asked and bits[q] != a:
                    raise UsageError(
                        f"{name} and {asked[q]} read the same {q}, but are given {a} and {bits[q]} bits of it"
                    )
                bits[q], asked[q] = a, name
            weights[name] = w
        return weights, bits

    def _contraction(self, name: str) -> Contraction:
        if name not in self.contractions:
            raise UsageError(f"the latency table has no layer {name}: it has {', '.join(self.contractions)}")
        return self.contractions[name]

    def _cell(self, name: str, w: int, a: int) -> dict[str, float]:
        cells, pair = self.layers[self._contraction(name).layer].reads[name], BitPair(w, a)
        if pair not in cells:
            raise UsageError(
                f"the latency table has no W{w}A{a} of {name}: it has {' '.join(f'W{i}A{j}' for i, j in sorted(cells))}"
            )
        return cells[pair]

    def _input_bits(self, name: str, bits: Mapping[str, int]) -> int:
        return max(bits[q] for q in self.contractions[name].quantizers)

    def _formats(self, weights: Mapping[str, int], bits: Mapping[str, int]) -> dict[str, str]:
        """Quantizer → the formats that its readers want, joined by +."""
        wanted: dict[str, set[str]] = {}
        for name, c in self.contractions.items():
            form = self.format(name, weights[name], self._input_bits(name, bits))
            for q in c.quantizers:
                wanted.setdefault(q, set()).add(form)
        return {q: "+".join(sorted(forms)) for q, forms in wanted.items()}

    def _layer(self, row: LayerTimes, weights, bits, formats) -> float:
        seconds, counted = row.base, set()
        for name in row.reads:
            own_w, a = self.contractions[name].w, self._input_bits(name, bits)
            at_own_weights = self.latency(name, own_w, a)
            seconds += self.latency(name, weights[name], a) - at_own_weights
            quantizers = set(self.contractions[name].quantizers)
            if not quantizers <= counted:
                seconds += at_own_weights - row.base
            counted |= quantizers
        for q, cells in row.views.items():
            if q not in counted and q not in row.packs:
                seconds += self._bits_of(cells, q, bits[q]) - row.base
        for q, cells in row.packs.items():
            cell = self._bits_of(cells, q, bits[q])
            seconds += cell.get(formats.get(q, self.quantizers[q][1]), max(cell.values())) - row.base
        return seconds

    def _written(self, cells, quantizer: str, a: int, formats: str) -> float:
        cell = self._bits_of(cells, quantizer, a)
        if formats not in cell and "" not in cell:
            raise UsageError(
                f"the latency table has no A{a} of quantizer {quantizer} written as {formats}, which nothing that "
                f"reads it wants at these bits: it has {', '.join(cell)}"
            )
        return cell.get(formats, cell.get(""))

    @staticmethod
    def _bits_of(cells, quantizer: str, a: int):
        if a not in cells:
            raise UsageError(
                f"the latency table has no A{a} of quantizer {quantizer}: it has "
                f"{', '.join(f'A{b}' for b in sorted(cells))}"
            )
        return cells[a]

    # -- on disk -------------------------------------------------------------------------------------
    def save(self, path: str | os.PathLike) -> None:
        """Whole or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    def to_json(self) -> dict:
        layers = {}
        for name, row in self.layers.items():
            layers[name] = {
                "base": row.base,
                "LUT": {
                    k: {str(BitPair(*bits)): cell for bits, cell in sorted(cells.items())}
                    for k, cells in row.reads.items()
                },
                "PACK": {q: {f"a{a}": cell for a, cell in sorted(cells.items())} for q, cells in row.packs.items()},
                "views": {q: {f"a{a}": s for a, s in sorted(cells.items())} for q, cells in row.views.items()},
            }
        return {
            "latency_table": FORMAT,
            "model": self.model,
            "measured_on": self.measured_on,
            "bits": {"w": list(self.bits.weights), "a": list(self.bits.activations)},
            "unit": "seconds",
            "contractions": {k: asdict(c) for k, c in self.contractions.items()},
            "quantizers": {q: {"a": a, "formats": f} for q, (a, f) in self.quantizers.items()},
            "layers": layers,
            "beside": self.beside,
        }

    @staticmethod
    def from_json(data: dict, source: str = "latency table") -> LatencyTable:
        """Raises ModelError naming `source` where `data` is no table of this version."""

        def wrong(what: str) -> ModelError:
            return ModelError(f"{source} is no latency table ({what})")

        version = data.get("latency_table")
        if version != FORMAT:
            if type(version) is not int:
                raise wrong(f"latency_table must be {FORMAT}, not {version!r}" if version else "lacks latency_table")
            raise ModelError(f"{source} is a latency table of format {version}, this version reads {FORMAT}")
        file = validated(data, _File, wrong)
        for name, c in file.contractions.items():
            if c.layer not in file.layers or name not in file.layers[c.layer].LUT:
                raise wrong(f"contraction {name} is of layer {c.layer}, which has no LUT of it")
            if not c.quantizers:
                raise wrong(f"contraction {name} reads no quantizer")
            for q in c.quantizers:
                if q not in file.quantizers:
                    raise wrong(f"contraction {name} reads {q}, which is none of its quantizers")
        for name, row in file.layers.items():
            for k in row.LUT:
                if k not in file.contractions or file.contractions[k].layer != name:
                    raise wrong(f"layer {name} has a LUT of {k}, which is no contraction of it")
            for q in [*row.PACK, *row.views]:
                if q not in file.quantizers:
                    raise wrong(f"layer {name} has times of {q}, which is none of its quantizers")
        layers = {
            name: LayerTimes(
                row.base,
                {k: {_pair(key): cell for key, cell in cells.items()} for k, cells in row.LUT.items()},
                {q: {int(key[1:]): cell for key, cell in cells.items()} for q, cells in row.PACK.items()},
                {q: {int(key[1:]): s for key, s in cells.items()} for q, cells in row.views.items()},
            )
            for name, row in file.layers.items()
        }
        quantizers = {name: (q.a, q.formats) for name, q in file.quantizers.items()}
        return LatencyTable(
            file.model,
            file.measured_on,
            BitCandidates.of(file.bits.w, file.bits.a),
            file.contractions,
            quantizers,
            layers,
            file.beside,
        )

    @staticmethod
    def load(path: str | os.PathLike) -> LatencyTable:
        """Raises UsageError where there is no such file, ModelError where it is no latency table."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ModelError(f"{path} is no latency table (not text)") from error
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} is no latency table ({error})") from error
        if not isinstance(data, dict):
            raise ModelError(f"{path} is no latency table")
        return LatencyTable.from_json(data, str(path))


Bits = Annotated[int, Meta(ge=1, le=16)]
"""Of an accumulator that is quantized again, up to 16."""
_W_A = Annotated[str, Meta(pattern="^w[0-9]+a[0-9]+$")]
_A = Annotated[str, Meta(pattern="^a[0-9]+$")]
_Forms = Annotated[dict[str, Seconds], Meta(min_length=1)]


@dataclass(frozen=True)
class _Bits:
    w: list[Bits]
    a: list[Bits]


@dataclass(frozen=True)
class _Quantizer:
    a: Bits
    formats: str


@dataclass(frozen=True)
class _Layer:
    base: Seconds
    LUT: dict[str, dict[_W_A, _Forms]]
    PACK: dict[str, dict[_A, _Forms]]
    views: dict[str, dict[_A, Seconds]]


@dataclass(frozen=True)
class _File:
    """What `to_json` writes. `beside` may be less than 0: layers in a network find their inputs in the caches."""

    model: str
    measured_on: dict[str, str]
    bits: _Bits
    contractions: dict[str, Contraction]
    quantizers: dict[str, _Quantizer]
    layers: dict[str, _Layer]
    beside: Annotated[float, Meta(gt=-1000, lt=1000)]


def _pair(key: str) -> BitPair:
    w, a = key[1:].split("a")
    return BitPair(int(w), int(a))
