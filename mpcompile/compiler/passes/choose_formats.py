"""Chooses, for the whole graph, the kernel family of every contraction and the stored forms of every tensor."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from mpcompile.compiler.passes.dataflow import as_map
from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Graph, Quantizer
from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart, ContractTerm, Layer
from mpcompile.kernels.families import family
from mpcompile.kernels.select import candidates
from mpcompile.targets import Target
from mpcompile.targets.kind import StorageCosts

CHOICES = (("codes",), ("planes",), ("codes", "planes"))


Allowed = Mapping[str, Mapping[tuple[int, int], Collection[str]]]
"""Layer name → (term, part) → the kernel families that may compute it. What is not named may be computed by any."""


@dataclass
class FormatChoice:
    """families: layer name → {(term, part): family}. buffers: tensor → its stored forms; sums follow the form beside
    which they stand. `cycles`: what the cost model expects of each contraction, by layer name and (term, part)."""

    families: dict[str, dict[tuple[int, int], str]] = field(default_factory=dict)
    buffers: dict[str, list[Buffer]] = field(default_factory=dict)
    cycles: dict[str, dict[tuple[int, int], float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reader:
    """One contraction that reads a tensor, with what each family would cost."""

    layer: Layer
    place: tuple[int, int]
    part: ContractPart
    costs: dict[str, float]

    def best(self, formats: tuple[str, ...]) -> str | None:
        """The cheapest family that finds its form among `formats`."""
        fitting = [f for f in self.costs if family(f).reads in formats]
        return min(fitting, key=self.costs.__getitem__, default=None)


@dataclass(frozen=True)
class ChooseFormats:
    """Before: a graph after `fuse_layers`. After: the same graph, and a `FormatChoice` of families and buffers.

    A contraction reads one tensor, so the least Σ cycles of contractions + cycles of writing is found tensor by tensor,
    exactly. Layers read float tensors as `float`, everything else and the model's ports are `plain`.

    `allowed` leaves a contraction only some families: those that a latency table found fastest, or that a user wants
    (`allowed_by`).
    """

    target: Target
    allowed: Allowed = field(default_factory=dict)

    def apply(self, graph: Graph) -> FormatChoice:
        """Raises ModelError naming the layer that no family can compute, UsageError the one that none of those that are
        allowed can."""
        result = FormatChoice()
        layers = {n.name: n for n in graph.nodes if isinstance(n, Layer)}
        contractions, views, plain = _readers(graph)
        for layer in layers.values():
            result.families[layer.name], result.cycles[layer.name] = {}, {}
        by_layer = {t for layer in layers.values() for t in layer.outputs}
        for tensor in dict.fromkeys(chain(graph.inputs, *(n.outputs for n in graph.nodes))):
            if graph.types[tensor].quantizer:
                readers = [
                    _Reader(layer, place, part, self._costs(graph, layer, place, part))
                    for layer, place, part in contractions.get(tensor, ())
                ]
                result.buffers[tensor] = _place(
                    graph, tensor, readers, views.get(tensor, 0), self.target.storage, result
                )
            else:
                result.buffers[tensor] = _float_buffers(
                    graph, tensor, tensor in by_layer, tensor in plain, tensor in views
                )
        return result

    def _costs(self, graph: Graph, layer: Layer, place: tuple[int, int], part: ContractPart) -> dict[str, float]:
        grid = _grid(graph, layer, part)
        costs = dict(candidates(part, grid, self.target, layer.shape[1:]))
        if not costs:
            raise ModelError(
                f"layer {layer.name}: no kernel family multiplies weights on a {part.grid} "
                f"in {part.groups} groups with activations on a {grid}"
            )
        wanted = self.allowed.get(layer.name, {}).get(place)
        if wanted is None:
            return costs
        left = {name: cycles for name, cycles in costs.items() if name in wanted}
        if not left:
            raise UsageError(
                f"layer {layer.name} cannot be computed by {' or '.join(sorted(wanted))}: "
                f"{' or '.join(costs)} would be accepted"
            )
        return left


def allowed_by(families: Mapping[str, str], graph: Graph, target: Target) -> Allowed:
    """What a user wants of a graph after `fuse_layers`: layer name → family, and "*" → the family of every contraction of
    the other layers that can have it.

    Raises UsageError at an unknown family, and at a layer that has no contraction.
    """
    contracted = {
        n.name: n for n in graph.nodes if isinstance(n, Layer) and any(isinstance(t, ContractTerm) for t in n.terms)
    }
    for name, wanted in families.items():
        family(wanted)
        if name != "*" and name not in contracted:
            raise UsageError(f"the model has no contraction {name} that a family could be forced on")
    allowed: dict[str, dict[tuple[int, int], tuple[str, ...]]] = {}
    for name, layer in contracted.items():
        for i, term in enumerate(layer.terms):
            for j, part in enumerate(term.parts if isinstance(term, ContractTerm) else ()):
                wanted = families.get(name) or families.get("*")
                if wanted is None:
                    continue
                grid = _grid(graph, layer, part)
                if name in families or wanted in dict(candidates(part, grid, target, layer.shape[1:])):
                    allowed.setdefault(name, {})[i, j] = (wanted,)
    return allowed


def _grid(graph: Graph, layer: Layer, part: ContractPart) -> Grid:
    """Of a contraction's input."""
    grid = graph.types[part.input].grid
    assert grid is not None, f"{layer.name} multiplies {part.input}, which is not quantized"
    return grid


def _readers(graph: Graph):
    """tensor → contractions (layer, (term, part), part); tensor → how many pools and views; tensors that must be
    plain."""
    contractions: dict[str, list] = {}
    views: dict[str, int] = {}
    plain = set(graph.inputs) | set(graph.outputs)
    for node in graph.nodes:
        if not isinstance(node, Layer):
            plain.update(node.inputs, node.outputs)
            continue
        for i, term in enumerate(node.terms):
            if isinstance(term, ContractTerm):
                for j, part in enumerate(term.parts):
                    contractions.setdefault(part.input, []).append((node, (i, j), part))
            else:
                views[term.input] = views.get(term.input, 0) + 1
    return contractions, views, plain


def _place(
    graph: Graph, tensor: str, readers: list[_Reader], views: int, storage: StorageCosts, result: FormatChoice
) -> list[Buffer]:
    """The cheapest stored forms of a quantized tensor; the families of its readers go into `result`."""
    shape = _map(graph, tensor)
    quantizer = graph.types[tensor].quantizer
    assert quantizer is not None
    best: tuple[float, tuple[str, ...], list[str]] | None = None
    for formats in CHOICES:
        chosen = [f for r in readers if (f := r.best(formats)) is not None]
        used = {family(f).reads for f in chosen}
        if len(chosen) < len(readers) or (readers and used != set(formats)) or (not readers and len(formats) > 1):
            continue
        if not readers and formats == ("planes",):
            continue
        cost = sum(r.costs[f] for r, f in zip(readers, chosen))
        sums = {family(f).reads for r, f in zip(readers, chosen) if family(f).sums(r.part)}
        cost += _beside(shape, quantizer, formats, sums, views, storage)
        if best is None or cost < best[0]:
            best = cost, formats, chosen
    assert best is not None, "each reader has a family, and its form is among the choices"
    _, formats, chosen = best
    buffers: list[Buffer] = []
    for form in formats:
        served = [(r, f) for r, f in zip(readers, chosen) if family(f).reads == form]
        top, left, bottom, right = (int(max((r.part.pads[i] for r, _ in served), default=0)) for i in range(4))
        halo = top, left, bottom, right
        buffers.append(Buffer(tensor, form, shape, quantizer.grid, halo))
        if any(family(f).sums(r.part) for r, f in served):
            buffers.append(Buffer(tensor, "sums", shape, quantizer.grid, halo, form))
        for r, f in served:
            result.families[r.layer.name][r.place] = f
            result.cycles[r.layer.name][r.place] = r.costs[f]
    return buffers


def _map(graph: Graph, tensor: str) -> tuple[int, int, int]:
    shape = as_map(graph.types[tensor].shape)
    assert shape is not None, f"{tensor} is no map"
    return shape


def _beside(shape, quantizer: Quantizer, formats, sums: set[str], views: int, storage: StorageCosts) -> float:
    """Cycles to write the forms, and for pools and views to read the cheapest of them."""
    size = float(np.prod(shape))
    planes = quantizer.grid.planes
    write = sum(storage.write[f] * (planes if f == "planes" else 1) for f in formats)
    write += storage.write["sums"] * len(sums)
    return size * (write + views * min(storage.read[f] * (planes if f == "planes" else 1) for f in formats))


def _float_buffers(graph: Graph, tensor: str, by_layer: bool, plain: bool, viewed: bool) -> list[Buffer]:
    """A float tensor: plain where something but a layer needs it, channels last where a layer hands it to a layer."""
    shape = graph.types[tensor].shape
    buffers = [Buffer(tensor, "plain", shape)] if plain else []
    if by_layer and (viewed or not plain):
        buffers.append(Buffer(tensor, "float", _map(graph, tensor)))
    return buffers
