"""Which variants of which layers a latency table needs, in waves: what the first tell spares some of the later ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mpcompile.ir.bits import BitCandidates, BitPair
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import ContractTerm, InterpolateTerm, Layer, PoolTerm, RearrangeTerm, ViewTerm
from mpcompile.latency.node_map import NodeMap, layer_of
from mpcompile.latency.requantize import Knob
from mpcompile.latency.subgraph import Families, Readings, Subgraph, layer_subgraph
from mpcompile.latency.table import Contraction, LatencyTable, LayerTimes
from mpcompile.latency.workbench import Workbench

WORTH = 4.0
"""A family that the cost model expects to take so many times the best one's cycles is not measured."""
SLOWER = 1.2
"""Planes that are expected, after what was measured, to take so many times what codes take are not measured."""

VIEWS = (InterpolateTerm, PoolTerm, RearrangeTerm, ViewTerm)
"""Terms that read a tensor in whatever form it is stored."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One number of the table: where it goes (`row` is base, reads, packs or views), and the subgraph that gives it.
    `expected`: for reads, the cost model's cycles over those of the best family."""

    layer: str
    row: str
    subgraph: Subgraph
    name: str = ""
    index: tuple[int, ...] = ()
    form: str = ""
    expected: float = 1.0


Seconds = Mapping[Cell, float]


class Planner:
    """Every cell that the table might need, and `waves` of those that it does."""

    def __init__(self, graph: Graph, bits: BitCandidates, bench: Workbench):
        self.bench, self.bits = bench, bits
        self.node_map = NodeMap(graph, bench.fuse)
        self.readers_of = _forms(bench.families)
        """Formats that a quantizer is written in → families whose readers want that."""
        self.families = self._one_family_a_layer(bench.choose(self.node_map.fused))
        self.dropped: set[Cell] = set()
        """Cells that no wave will bring."""
        self.readers = {
            q: [k for k in self.node_map.knobs.values() if q in k.quantizers] for q in self.node_map.quantizers
        }
        self.cells = [
            Cell(name, "base", self._subgraph(self.node_map.fused, name, self.families))
            for name in self.node_map.layers
        ]
        for knob in self.node_map.knobs.values():
            self.cells += self._reads(knob)
        for quantizer in self.node_map.quantizers:
            self.cells += self._packs_and_views(quantizer)

    def _subgraph(
        self, fused: Graph, name: str, families: Families, written: Mapping[str, tuple[str, ...]] | None = None
    ) -> Subgraph:
        return layer_subgraph(fused, name, families, self.bench.families, written)

    def _one_family_a_layer(self, families: Families) -> Families:
        """`families`, but codes where a layer has several convolutions: one tile must do for both, and a mixture may be
        slower than either kind, which the table, where each is by itself, could not say. So each is measured beside the
        others in codes."""
        homes = Counter(self.node_map.home[name] for name in self.node_map.knobs)
        found = {layer: dict(chosen) for layer, chosen in families.items()}
        for name in self.node_map.knobs:
            layer = self.node_map.layers[self.node_map.home[name]]
            for i, j in self.node_map.parts[name] if homes[layer.name] > 1 else ():
                able = self._candidates(self.node_map.fused, layer, (i, j))
                found[layer.name][i, j] = next(
                    (f for f, _ in able if self.bench.families[f].reads == "codes"), able[0][0]
                )
        return found

    def waves(self, seconds: Seconds) -> Iterator[list[Cell]]:
        """Cells to be measured together; `seconds` must know the last wave's when the next is asked for.

        Formats come last: a quantizer is measured only in those that some choice of bits asks for.
        """
        self.dropped.clear()
        doubtful = {c for c in self.cells if c.row == "reads" and c.form == "planes" and c.expected > 1}
        packs = [c for c in self.cells if c.row == "packs"]
        yield [c for c in self.cells if c not in doubtful and c.row != "packs"]
        for product in sorted({c.index[0] * c.index[1] for c in doubtful}):
            self.dropped |= {c for c in doubtful if self._hopeless(c, seconds)}
            yield [c for c in self.cells if c in doubtful - self.dropped and c.index[0] * c.index[1] == product]
        table = self.table(seconds)
        self.dropped |= {c for c in packs if c.form and c.form not in self._asked(table, c.name, c.index[0])}
        yield [c for c in packs if c not in self.dropped]

    def _hopeless(self, cell: Cell, seconds: Seconds) -> bool:
        """Whether the convolution's planes, so far as they were measured, say that these will be too slow: they take a
        constant and a share for each pair of planes."""
        if cell in seconds:
            return False
        same = [c for c in seconds if c.row == "reads" and c.name == cell.name]
        codes = [seconds[c] for c in same if c.form == "codes" and c.index == cell.index]
        pairs: dict[int, float] = {}  # w1a2 and w2a1 are as many: the order in which they came must not tell
        for c in same:
            if c.form == "planes":
                product = c.index[0] * c.index[1]
                pairs[product] = min(seconds[c], pairs.get(product, seconds[c]))
        if not codes or len(pairs) < 2:
            return False
        few, most = min(pairs), max(pairs)
        share = (pairs[most] - pairs[few]) / (most - few)
        return pairs[few] + share * (cell.index[0] * cell.index[1] - few) > SLOWER * codes[0]

    def _asked(self, table: LatencyTable, quantizer: str, a: int) -> set[str]:
        """The formats that `quantizer` at a bits is written in, over all weight bits of its readers."""
        found = {""}
        for knob in self.readers[quantizer]:
            cells = table.layers[self.node_map.home[knob.name]].reads[knob.name]
            wanted = {table.format(knob.name, w, b) for w, b in cells if b == a}
            wanted = wanted or {form for cell in cells.values() for form in cell}
            found = {"+".join(sorted({*filter(None, f.split("+")), form})) for f in found for form in wanted}
        return found

    # -- LUT[k][w, a][format] ----------------------------------------------------------------------
    def _reads(self, knob: Knob) -> Iterator[Cell]:
        parts, home = self.node_map.parts[knob.name], self.node_map.home[knob.name]
        fixed = bool(set(knob.quantizers) & self.node_map.fixed)
        for a in [knob.a] if fixed else sorted({*self.bits.activations, knob.a}):
            for w in sorted({*self.bits.weights, knob.w}):
                fused = self.node_map.at_bits({knob.name: w}, dict.fromkeys(knob.quantizers, a))
                for family, expected in self._worth(fused, layer_of(fused, home), knob).items():
                    chosen = dict(self.families[home]) | dict.fromkeys(parts, family)
                    subgraph = self._subgraph(fused, home, {**self.families, home: chosen})
                    form = self.bench.families[family].reads
                    yield Cell(home, "reads", subgraph, knob.name, BitPair(w, a), form, expected)

    def _worth(self, fused: Graph, layer: Layer, knob: Knob) -> dict[str, float]:
        """Family → expected cycles over the best one's, of those worth measuring for the knob's parts: expected near
        the best, or what the compiler chose."""
        costs: dict[str, float] = {}
        able: list[set[str]] = []
        for i, j in self.node_map.parts[knob.name]:
            found = dict(self._candidates(fused, layer, (i, j)))
            able.append(set(found))
            for family, cycles in found.items():
                costs[family] = costs.get(family, 0.0) + cycles
        ratios = {f: c / min(costs.values()) for f, c in costs.items() if all(f in some for some in able)}
        own: set[str | None] = set()
        if fused is self.node_map.fused:
            own = {self.families[layer.name].get(p) for p in self.node_map.parts[knob.name]}
        return {f: 1.0 if f in own else r for f, r in ratios.items() if r <= WORTH or f in own}

    def _candidates(self, fused: Graph, layer: Layer, part: tuple[int, int]) -> Sequence[tuple[str, float]]:
        """(family, cycles) for one of the layer's parts, cheapest first."""
        found = layer.part(*part)
        grid = fused.types[found.input].grid
        assert grid is not None, "what a contraction reads has a grid"
        return self.bench.candidates(found, grid, layer.shape[1:])

    # -- PACK[q][a][formats], and layers that only read ---------------------------------------------
    def _packs_and_views(self, quantizer: str) -> Iterator[Cell]:
        tensors = self.node_map.tensors(quantizer)
        contracted = {
            p.input
            for layer in self.node_map.layers.values()
            for t in layer.terms
            if isinstance(t, ContractTerm)
            for p in t.parts
        }
        readers = self.readers[quantizer]
        bits = {*self.bits.activations, self.node_map.quantizers[quantizer], *(knob.a for knob in readers)}
        forms = [f for f in self.readers_of if "+" not in f or len(readers) > 1]
        for a in [] if quantizer in self.node_map.fixed else sorted(bits):
            fused = self.node_map.at_bits({}, {quantizer: a})
            for name, layer in self.node_map.layers.items():
                writes = [t for t in layer.outputs if t in tensors]
                for form in forms if set(writes) & contracted else [""] if writes else []:
                    written = {t: self.readers_of[form] for t in writes if t in contracted}
                    yield Cell(
                        name, "packs", self._subgraph(fused, name, self.families, written), quantizer, (a,), form
                    )
                views = any(t.input in tensors for t in layer.terms if isinstance(t, VIEWS))
                if views and not writes:
                    yield Cell(name, "views", self._subgraph(fused, name, self.families), quantizer, (a,))

    # -- the table ---------------------------------------------------------------------------------
    def table(self, seconds: Seconds) -> LatencyTable:
        """Of what `seconds` knows."""
        rows = {c.layer: LayerTimes(seconds[c]) for c in self.cells if c.row == "base"}
        for cell in self.cells:
            if cell.row == "base" or cell not in seconds:
                continue
            row, value = rows[cell.layer], seconds[cell]
            if cell.row == "reads":
                forms = row.reads.setdefault(cell.name, {}).setdefault(BitPair(*cell.index), {})
                forms[cell.form] = min(value, forms.get(cell.form, value))  # dot and look-ups both read codes
            elif cell.row == "packs":
                row.packs.setdefault(cell.name, {}).setdefault(cell.index[0], {})[cell.form] = value
            else:
                row.views.setdefault(cell.name, {})[cell.index[0]] = value
        nodes = self.node_map
        contractions = {
            k: Contraction(nodes.home[k], knob.w, knob.a, knob.quantizers) for k, knob in nodes.knobs.items()
        }
        quantizers = {q: (a, "") for q, a in nodes.quantizers.items()}
        table = LatencyTable(nodes.graph.source, dict(self.bench.identity), self.bits, contractions, quantizers, rows)
        forms = table.formats()
        table.quantizers = {q: (a, forms[q]) for q, a in nodes.quantizers.items()}
        return table


def _forms(families: Readings) -> dict[str, tuple[str, ...]]:
    """Formats, joined by + where there are several → the first family that reads each."""
    first: dict[str, str] = {}
    for name, family in families.items():
        first.setdefault(family.reads, name)
    found = {form: (name,) for form, name in first.items()}
    return found | {"+".join(sorted(first)): tuple(first[form] for form in sorted(first))}
