"""One fused layer out of its network, with stand-ins for its neighbours, so that it can be compiled and timed by
itself.

What comes before the layer becomes a quantizer (or a copy, for float32) that stores what the real producers store. What
comes after becomes, for each reader, a small operator of the same kind with the same halo, so that the layer writes the
same formats as in the network. The layer itself is untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mpcompile.ir.graph import Graph, Quantizer, TensorType
from mpcompile.ir.layer import (
    ContractPart,
    ContractTerm,
    Fma,
    InterpolateTerm,
    Layer,
    Load,
    Output,
    PoolTerm,
    RearrangeTerm,
    Round,
    Term,
    ViewTerm,
)

Families = Mapping[str, Mapping[tuple[int, int], str]]
"""Layer name → (term, part) → kernel family."""


class Reading(Protocol):
    """What is to be known here of a kernel family."""

    @property
    def reads(self) -> str:
        """The stored form of its input: "planes" or "codes"."""
        ...

    @property
    def sample(self) -> Callable[[str, int, tuple[int, int, int, int]], ContractPart]:
        """(tensor, channels, pads) → a small contraction that it computes of a tensor of so many channels, and 1×1 but
        for its pads."""
        ...


Readings = Mapping[str, Reading]
"""Kernel families by name."""

_HEAD = ".head"
"""What the names of layers that stand for the ones before end with."""


@dataclass
class Subgraph:
    """`graph` holds the layer under its own name; `families` says how its stand-ins read, `reads` what they read as:
    tensor → formats ("planes", "codes", "float")."""

    graph: Graph
    layer: str
    families: dict[str, dict[tuple[int, int], str]] = field(default_factory=dict)
    reads: dict[str, set[str]] = field(default_factory=dict)


def layer_subgraph(
    fused: Graph,
    name: str,
    families: Families,
    readings: Readings,
    written: Mapping[str, tuple[str, ...]] | None = None,
) -> Subgraph:
    """Layer `name` of the fused graph, to be compiled subgraph.

    `families` are the network's: they decide what its readers read, as `readings` tells. `written` overrides that for
    some of its quantized outputs: tensor → families that read it. Raises KeyError where there is no such layer.
    """
    layer = {n.name: n for n in fused.nodes if isinstance(n, Layer)}[name]
    work = _SubgraphBuilder(fused, layer, families, readings, written or {})
    work.heads()
    work.graph.nodes.append(layer)
    for t in layer.outputs:
        work.tails(t)
    return Subgraph(work.graph.check(), name, work.families, work.reads)


class _SubgraphBuilder:
    def __init__(
        self,
        fused: Graph,
        layer: Layer,
        families: Families,
        readings: Readings,
        written: Mapping[str, tuple[str, ...]],
    ):
        self.fused, self.layer, self.network, self.written = fused, layer, families, written
        self.readings = readings
        self.unnamed = next(name for name, family in readings.items() if family.reads == "codes")
        """Of a contraction that the network's families do not name: other bits may split one in two."""
        self.families: dict[str, dict[tuple[int, int], str]] = {
            n: dict(f) for n, f in families.items() if n == layer.name
        }
        self.reads: dict[str, set[str]] = {t: set() for t in layer.outputs}
        self.producer = fused.producer()
        self.readers = fused.consumers()
        self.graph = Graph(source=fused.source)
        self.graph.types = {t: fused.types[t] for t in (*layer.inputs, *layer.outputs)}

    # -- before ------------------------------------------------------------------------------------
    def heads(self) -> None:
        for t in self.layer.inputs:
            kind = self.fused.types[t]
            if kind.quantizer is None and not isinstance(self.producer.get(t), Layer):
                self.graph.inputs.append(t)
                continue
            source = f"{t}.source"
            self.graph.inputs.append(source)
            self.graph.types[source] = TensorType(kind.shape)
            self.graph.nodes.append(_head(source, t, kind))

    # -- after -------------------------------------------------------------------------------------
    def tails(self, tensor: str) -> None:
        if tensor in self.fused.outputs or any(not isinstance(n, Layer) for n in self.readers[tensor]):
            self.graph.outputs.append(tensor)
            self.reads[tensor].add("float")
        grid = self.fused.types[tensor].grid
        top, left, bottom, right = 0, 0, 0, 0
        views: dict[str, Term] = {}
        families: list[str] = []
        for reader in dict.fromkeys(n for n in self.readers[tensor] if isinstance(n, Layer)):
            for i, term in enumerate(reader.terms):
                if isinstance(term, ContractTerm):
                    for j, part in enumerate(term.parts):
                        if part.input == tensor:
                            top, left, bottom, right = map(max, (top, left, bottom, right), part.pads)
                            families.append(self.network.get(reader.name, {}).get((i, j), self.unnamed))
                elif term.input == tensor:
                    views[type(term).__name__] = term
        for family in dict.fromkeys(self.written.get(tensor, families)):
            self._contraction(tensor, (top, left, bottom, right), family)
        for kind, term in views.items():
            self._append(tensor, kind, term)
            self.reads[tensor].add("float" if grid is None else "any")

    def _contraction(self, tensor: str, halo: tuple[int, int, int, int], family: str) -> None:
        channels = _as_map(self.fused.types[tensor].shape)[0]
        part = self.readings[family].sample(tensor, channels, halo)
        node = self._append(tensor, family, ContractTerm([part]))
        self.families[node] = {(0, 0): family}
        self.reads[tensor].add(self.readings[family].reads)

    def _append(self, tensor: str, kind: str, term: Term) -> str:
        """A layer that applies `term` to `tensor` and returns it in float32 as an output of the graph."""
        shape = _result(term, _as_map(self.fused.types[tensor].shape))
        name = out = f"{tensor}.{kind}"
        self.graph.types[out] = TensorType(shape)
        self.graph.nodes.append(Layer(name, [tensor], [out], shape, [term], [Load(0)], [Output(out, 0)], [name]))
        self.graph.outputs.append(out)
        return name


def _head(source: str, tensor: str, kind: TensorType) -> Layer:
    """float32 `source` → `tensor`, quantized as its type says, or stored as it is."""
    shape, quantizer = _as_map(kind.shape), kind.quantizer
    epilogue: list = [Load(0)]
    if quantizer:
        epilogue += [
            Fma(0, np.array([1 / quantizer.spacing], np.float32), np.array([_zero(quantizer)], np.float32)),
            Round(1, quantizer.rounding, *_level_range(quantizer)),
        ]
    results = [Output(tensor, len(epilogue) - 1, quantizer)]
    return Layer(f"{tensor}{_HEAD}", [source], [tensor], shape, [ViewTerm(source)], epilogue, results, [tensor])


def _zero(quantizer: Quantizer) -> float:
    return 0.0 if quantizer.rounding == "sign" else quantizer.zero


def _level_range(quantizer: Quantizer) -> tuple[int, int]:
    """lo, hi of the Round that counts its levels."""
    if quantizer.rounding == "sign":
        return 0, 1
    return quantizer.umin, quantizer.umin + quantizer.grid.levels - 1


def _as_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return {1: lambda c: (c, 1, 1), 2: lambda c, n: (c, 1, n), 3: lambda *s: s}[len(shape)](*shape)


def _result(term: Term, shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) that `term` gives over a map of `shape`."""
    c, h, w = shape
    match term:
        case ContractTerm(parts=[part]):
            (top, left, bottom, right), (_, _, kh, kw) = part.pads, part.q.shape
            return part.q.shape[0], h + top + bottom - kh + 1, w + left + right - kw + 1
        case PoolTerm(kernel=(kh, kw), strides=(sy, sx), pads=(top, left, bottom, right)):
            return c, (h + top + bottom - kh) // sy + 1, (w + left + right - kw) // sx + 1
        case ViewTerm(along=(channels, lines, columns)) | RearrangeTerm(along=(channels, lines, columns)):
            return channels.size, lines.size, columns.size
        case InterpolateTerm(lines=lines, columns=columns):
            return c, lines.size, columns.size
    return shape
