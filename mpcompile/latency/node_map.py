"""Where a model's convolutions and quantizers are in its fused graph, found by trial: what changes with their bits.

Pools move quantizers, concats split convolutions, so no name tells. A convolution's parts of a fused layer are those
whose grid changes with its weight bits, a quantizer's tensors are those whose grid changes with its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mpcompile.ir.graph import Graph, Quantize
from mpcompile.ir.layer import ContractTerm, Layer
from mpcompile.latency.requantize import Knob, fixed_quantizers, knobs, requantize


class NodeMap:
    """`fused`: the graph in layers, `layers` by name. `knobs`: the convolutions and dense layers that are in one;
    `home`: source node → layer. `quantizers`: those that knobs read → own bits; `fixed`: those whose bits cannot
    change."""

    def __init__(self, graph: Graph, fuse: Callable[[Graph], Graph]):
        self.graph, self._fuse = graph, fuse
        self.fused = fuse(graph)
        self.layers = {n.name: n for n in self.fused.nodes if isinstance(n, Layer)}
        self.home = {source: layer.name for layer in self.layers.values() for source in layer.source}
        self.knobs = {k: knob for k, knob in knobs(graph).items() if k in self.home}
        own = {n.name: n.quantizer.grid.bits for n in graph.nodes if isinstance(n, Quantize)}
        self.quantizers = {q: own[q] for knob in self.knobs.values() for q in knob.quantizers}
        self.fixed = fixed_quantizers(graph)
        self.parts = {k: self._find_parts(knob) for k, knob in self.knobs.items()}
        """Knob → (term, part) of each of its parts in its layer."""

    def at_bits(self, weights: Mapping[str, int], activations: Mapping[str, int]) -> Graph:
        """The fused graph at other bits."""
        weights = {k: w for k, w in weights.items() if w != self.knobs[k].w}
        activations = {q: a for q, a in activations.items() if a != self.quantizers[q]}
        if not weights and not activations:
            return self.fused
        return self._fuse(requantize(self.graph, weights, activations))

    def tensors(self, quantizer: str) -> set[str]:
        """Stored tensors whose codes are the quantizer's."""
        if quantizer in self.fixed:
            return set()
        types = self.at_bits({}, {quantizer: _other(self.quantizers[quantizer])}).types
        return {t for t, kind in self.fused.types.items() if kind.grid != types[t].grid}

    def _find_parts(self, knob: Knob) -> list[tuple[int, int]]:
        now = layer_of(self.at_bits({knob.name: _other(knob.w)}, {}), self.home[knob.name])
        found = []
        for i, (before, after) in enumerate(zip(self.layers[now.name].terms, now.terms, strict=True)):
            if isinstance(before, ContractTerm) and isinstance(after, ContractTerm):
                found += [
                    (i, j) for j, (p, r) in enumerate(zip(before.parts, after.parts, strict=True)) if p.grid != r.grid
                ]
        return found


def layer_of(fused: Graph, name: str) -> Layer:
    return next(n for n in fused.nodes if isinstance(n, Layer) and n.name == name)


def _other(bits: int) -> int:
    return bits - 1 if bits > 2 else 3 - bits
