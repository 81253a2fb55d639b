"""Builds the latency table of a network: every fused layer, compiled and timed by itself at every pair of bits.

This room knows neither compiler nor device: a `Workbench` fuses, chooses, compiles and times. What is measured is kept
in a `Cache` at once, by shape, bits, formats, target and version; so a build that is killed goes on where it was, and
layers of one shape are measured once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mpcompile.graph import Graph, Quantize
from mpcompile.grid import Grid
from mpcompile.latency.cache import Cache
from mpcompile.latency.cut import Cut, Families, cut, format_of
from mpcompile.latency.measure import Timing
from mpcompile.latency.requantize import Knob, fixed_quantizers, knobs, requantize
from mpcompile.latency.table import Contraction, LatencyTable, LayerTimes
from mpcompile.layer import ContractPart, ContractTerm, Layer, PoolTerm, ViewTerm

BATCH = 8
"""Variants of one layer that are compiled, then timed in turn, before the next are."""
WORTH = 4.0
"""A family that the cost model expects to take so many times the best one's cycles is not measured."""

Progress = Callable[[int, int], None]


class Workbench(Protocol):
    """What compiles and measures. `identity` names everything that times depend on besides the layer: target, CPU,
    threads, versions."""

    identity: Mapping[str, str]

    def fuse(self, graph: Graph) -> Graph:
        """The model's graph to layers."""

    def choose(self, fused: Graph) -> Families:
        """The families that compiling the fused graph would choose."""

    def candidates(self, part: ContractPart, grid: Grid, output: tuple[int, int]) -> Sequence[tuple[str, float]]:
        """(family, cycles) of each family that can compute `part` over an input on `grid`, cheapest first."""

    def time(self, variants: Sequence[Cut]) -> list[Timing]:
        """Each variant's layer alone, timed in turn; in the order given."""


@dataclass(frozen=True)
class Cell:
    """One number of the table: where it goes (`row` is reads, packs, views or base), and the variant that gives it."""

    layer: str
    row: str
    name: str = ""
    index: tuple[int, ...] = ()
    form: str = ""
    variant: Cut | None = None


def build_table(graph: Graph, w_bits: Iterable[int], a_bits: Iterable[int], bench: Workbench, cache: Cache, *,
                progress: Progress | None = None) -> LatencyTable:
    """The whole table of `graph` (as a frontend made it) for these bits, and for each layer's own.

    `progress(done, total)` counts numbers. Raises ModelError naming what cannot be compiled at other bits.
    """
    plan = _Planner(graph, sorted(set(w_bits)), sorted(set(a_bits)), bench)
    keys = {id(cell): key_of(cell.variant, bench.identity) for cell in plan.cells}
    waiting: dict[str, Cell] = {}
    for cell in plan.cells:
        if cache.get(keys[id(cell)]) is None:
            waiting.setdefault(keys[id(cell)], cell)
    done, total = len(set(keys.values())) - len(waiting), len(set(keys.values()))
    if progress:
        progress(done, total)
    for batch in _batches(waiting):
        timings = bench.time([cell.variant for _, cell in batch])
        for (key, cell), timing in zip(batch, timings):
            what = {"layer": cell.layer, "row": cell.row, "of": cell.name, "bits": list(cell.index), "form": cell.form}
            cache.put(key, what | {"seconds": timing.seconds, "low": timing.low, "high": timing.high})
        done += len(batch)
        if progress:
            progress(done, total)
    return plan.table({key: cache.get(key)["seconds"] for key in set(keys.values())}, keys)


def _batches(waiting: Mapping[str, Cell]) -> Iterable[list[tuple[str, Cell]]]:
    """Of one layer each, so that what is compared is measured in turn."""
    by_layer: dict[str, list[tuple[str, Cell]]] = {}
    for key, cell in waiting.items():
        by_layer.setdefault(cell.layer, []).append((key, cell))
    for cells in by_layer.values():
        for at in range(0, len(cells), BATCH):
            yield cells[at:at + BATCH]


class _Planner:
    """Which variants of which layers a table needs.

    What belongs together is found by trial: a convolution's parts of a fused layer are those whose grid changes with
    its weight bits, a quantizer's tensors are those whose grid changes with its bits (pools move quantizers, concats
    split convolutions).
    """

    def __init__(self, graph: Graph, w_bits: list[int], a_bits: list[int], bench: Workbench):
        self.graph, self.bench = graph, bench
        self.w_bits, self.a_bits = w_bits, a_bits
        self.fused = bench.fuse(graph)
        self.families = bench.choose(self.fused)
        self.layers = {n.name: n for n in self.fused.nodes if isinstance(n, Layer)}
        self.home = {source: layer.name for layer in self.layers.values() for source in layer.source}
        self.knobs = {k: knob for k, knob in knobs(graph).items() if k in self.home}
        own = {n.name: n.quantizer.grid.bits for n in graph.nodes if isinstance(n, Quantize)}
        self.quantizers = {q: own[q] for knob in self.knobs.values() for q in knob.quantizers}
        self.steady = fixed_quantizers(graph)
        self.places = {k: self._find_places(knob) for k, knob in self.knobs.items()}
        self.tensors = {q: self._find_tensors(q) for q in self.quantizers}
        self.cells = [Cell(name, "base", variant=cut(self.fused, name, self.families)) for name in self.layers]
        for knob in self.knobs.values():
            self._reads(knob)
        for quantizer in self.quantizers:
            self._packs_and_views(quantizer)

    def _variant(self, weights: Mapping[str, int], activations: Mapping[str, int]) -> Graph:
        """The fused graph at other bits."""
        weights = {k: w for k, w in weights.items() if w != self.knobs[k].w}
        activations = {q: a for q, a in activations.items() if a != self.quantizers[q]}
        if not weights and not activations:
            return self.fused
        return self.bench.fuse(requantize(self.graph, weights, activations))

    def _find_places(self, knob: Knob) -> list[tuple[int, int]]:
        """(term, part) of the knob's convolution in its fused layer."""
        now = _layer(self._variant({knob.name: _other(knob.w)}, {}), self.home[knob.name])
        found = []
        for i, (before, after) in enumerate(zip(self.layers[now.name].terms, now.terms, strict=True)):
            if isinstance(before, ContractTerm):
                found += [
                    (i, j) for j, (p, r) in enumerate(zip(before.parts, after.parts, strict=True)) if p.grid != r.grid
                ]
        return found

    def _find_tensors(self, quantizer: str) -> set[str]:
        """Stored tensors whose codes are the quantizer's."""
        if quantizer in self.steady:
            return set()
        types = self._variant({}, {quantizer: _other(self.quantizers[quantizer])}).types
        return {t for t, kind in self.fused.types.items() if kind.grid != types[t].grid}

    # -- LUT[k][w, a][format] ----------------------------------------------------------------------
    def _reads(self, knob: Knob) -> None:
        steady = bool(set(knob.quantizers) & self.steady)
        for a in [knob.a] if steady else sorted({*self.a_bits, knob.a}):
            for w in sorted({*self.w_bits, knob.w}):
                fused = self._variant({knob.name: w}, dict.fromkeys(knob.quantizers, a))
                layer = _layer(fused, self.home[knob.name])
                for family in self._families(fused, layer, knob):
                    chosen = dict(self.families[layer.name]) | dict.fromkeys(self.places[knob.name], family)
                    variant = cut(fused, layer.name, {**self.families, layer.name: chosen})
                    self.cells.append(Cell(layer.name, "reads", knob.name, (w, a), format_of(family), variant))

    def _families(self, fused: Graph, layer: Layer, knob: Knob) -> list[str]:
        """Families worth measuring for the knob's parts: expected near the best, or what the compiler chose."""
        costs: dict[str, float] = {}
        able: list[set[str]] = []
        for i, j in self.places[knob.name]:
            part = layer.terms[i].parts[j]
            found = dict(self.bench.candidates(part, fused.types[part.input].grid, layer.shape[1:]))
            able.append(set(found))
            for family, cycles in found.items():
                costs[family] = costs.get(family, 0.0) + cycles
        costs = {f: c for f, c in costs.items() if all(f in some for some in able)}
        own = {self.families[layer.name].get(p) for p in self.places[knob.name]} if fused is self.fused else set()
        return [f for f, c in costs.items() if c <= WORTH * min(costs.values()) or f in own]

    # -- PACK[q][a][formats], and layers that only read ---------------------------------------------
    def _packs_and_views(self, quantizer: str) -> None:
        tensors = self.tensors[quantizer]
        contracted = {
            p.input
            for layer in self.layers.values()
            for t in layer.terms
            if isinstance(t, ContractTerm)
            for p in t.parts
        }
        readers = [knob for knob in self.knobs.values() if quantizer in knob.quantizers]
        bits = {*self.a_bits, self.quantizers[quantizer], *(knob.a for knob in readers)}
        forms = {"planes": ("popcount",), "codes": ("dot",)} | (
            {"codes+planes": ("dot", "popcount")} if len(readers) > 1 else {}
        )
        for a in [] if quantizer in self.steady else sorted(bits):
            fused = self._variant({}, {quantizer: a})
            for name, layer in self.layers.items():
                writes = [t for t in layer.outputs if t in tensors]
                for form, families in forms.items() if set(writes) & contracted else [("", ())] if writes else []:
                    written = {t: families for t in writes if t in contracted}
                    self.cells.append(
                        Cell(name, "packs", quantizer, (a,), form, cut(fused, name, self.families, written))
                    )
                views = any(t.input in tensors for t in layer.terms if isinstance(t, (PoolTerm, ViewTerm)))
                if views and not writes:
                    self.cells.append(Cell(name, "views", quantizer, (a,), "", cut(fused, name, self.families)))

    # -- the table ---------------------------------------------------------------------------------
    def table(self, seconds: Mapping[str, float], keys: Mapping[int, str]) -> LatencyTable:
        rows: dict[str, LayerTimes] = {}
        for cell in self.cells:
            value = seconds[keys[id(cell)]]
            if cell.row == "base":
                rows[cell.layer] = LayerTimes(value)
            elif cell.row == "reads":
                rows[cell.layer].reads.setdefault(cell.name, {}).setdefault(cell.index, {})[cell.form] = value
            elif cell.row == "packs":
                rows[cell.layer].packs.setdefault(cell.name, {}).setdefault(cell.index[0], {})[cell.form] = value
            else:
                rows[cell.layer].views.setdefault(cell.name, {})[cell.index[0]] = value
        contractions = {k: Contraction(self.home[k], knob.w, knob.a, knob.quantizers) for k, knob in self.knobs.items()}
        formats: dict[str, set[str]] = {q: set() for q in self.quantizers}
        for knob in self.knobs.values():
            for place in self.places[knob.name]:
                for q in knob.quantizers:
                    formats[q].add(format_of(self.families[self.home[knob.name]][place]))
        quantizers = {q: (a, "+".join(sorted(formats[q]))) for q, a in self.quantizers.items()}
        bits = {"w": self.w_bits, "a": self.a_bits}
        return LatencyTable(self.graph.source, dict(self.bench.identity), bits, contractions, quantizers, rows)


def _layer(fused: Graph, name: str) -> Layer:
    return next(n for n in fused.nodes if isinstance(n, Layer) and n.name == name)


def _other(bits: int) -> int:
    return bits - 1 if bits > 2 else 3 - bits


def key_of(variant: Cut, identity: Mapping[str, str]) -> str:
    """What a variant's time depends on, as a hash: shapes, grids, formats and steps, no names and no values of
    weights."""
    graph = variant.graph
    number = {t: i for i, t in enumerate(dict.fromkeys(t for n in graph.nodes for t in (*n.inputs, *n.outputs)))}
    nodes = [[n.name == variant.layer, n.shape, [_term(t, number) for t in n.terms], [_step(s) for s in n.epilogue],
              [[number[r.name], r.value, r.quantizer.grid.to_json() if r.quantizer else None] for r in n.results],
              [[*place, family] for place, family in sorted(variant.families.get(n.name, {}).items())]]
             for n in graph.nodes]
    types = [[graph.types[t].shape, graph.types[t].grid.to_json() if graph.types[t].grid else None] for t in number]
    what = [
        nodes,
        types,
        [number[t] for t in graph.inputs],
        [number[t] for t in graph.outputs],
        sorted(identity.items()),
    ]
    return hashlib.sha256(json.dumps(what, default=_plain).encode()).hexdigest()[:32]


def _term(term, number: Mapping[str, int]) -> list:
    if isinstance(term, ContractTerm):
        return [
            [number[p.input], p.q.shape, p.grid.to_json(), p.strides, p.pads, p.dilations, p.groups] for p in term.parts
        ]
    rest = [] if isinstance(term, ViewTerm) else [term.kind, term.kernel, term.strides, term.pads]
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
