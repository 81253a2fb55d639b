"""The same network at other bitwidths: weights and activations moved to grids of the same kind. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir import grid as grids
from mpcompile.ir.graph import (
    Clip,
    Concat,
    Conv,
    Dense,
    Graph,
    Node,
    Pooling,
    Quantize,
    QuantizedWeight,
    Quantizer,
    Reshape,
    TensorType,
    Transpose,
)
from mpcompile.ir.grid import Grid


@dataclass(frozen=True)
class Knob:
    """A convolution or dense layer whose weight bits `w` can be set, and the quantizers (by their Quantize node's name)
    that its input comes from, whose bits `a` can: several where it reads a concat."""

    name: str
    w: int
    a: int
    quantizers: tuple[str, ...]


def kind_of(grid: Grid) -> str:
    """unsigned, twos_complement, odd, half_integer or sign_magnitude; 1-bit −1/+1 is odd. Raises ModelError at any
    other."""
    n, c = grid.planes, grid.plane_weights
    powers = tuple(1 << i for i in range(n))
    if c == powers:
        return "unsigned"
    if c == (*powers[:-1], -powers[-1]):
        return "twos_complement"
    if c == tuple(2 * p for p in powers):
        return "odd" if grid == grids.odd(n) else "half_integer"
    if n % 2 == 0 and grid == grids.sign_magnitude(n // 2):
        return "sign_magnitude"
    raise ModelError(f"a {grid} has no sibling with other bits")


def with_bits(grid: Grid, bits: int, kind: str | None = None) -> Grid:
    """The grid of `grid`'s kind (or of `kind`) with `bits` bits. A signed one at one bit is −1/+1, as in QONNX; a zero
    point keeps its place in the range. Raises ModelError or ValueError where there is none."""
    kind = kind or kind_of(grid)
    if kind != "unsigned" and bits == 1:
        return grids.bipolar()
    top, zero = (1 << bits) - 1, -grid.offset
    moved = round(zero * top / ((1 << grid.planes) - 1))
    match kind:
        case "unsigned":
            return grids.unsigned(bits, moved)
        case "twos_complement":
            narrow = kind_of(grid) == "twos_complement" and grid.lo == -grid.hi
            return grids.twos_complement(bits, narrow=narrow)
        case "sign_magnitude":
            return grids.sign_magnitude(bits - 1)
        case "half_integer":
            return grids.half_integer(bits, moved | 1)
        case _:
            return grids.odd(bits)


def weight_with_bits(weight: QuantizedWeight, bits: int, kind: str | None = None) -> QuantizedWeight:
    """The nearest weights on the grid with `bits` bits that reaches as far."""
    old, new = weight.grid, with_bits(weight.grid, bits, kind)
    stretch = old.max_abs / new.max_abs
    level = np.rint((weight.q / stretch - new.lo) / new.step).clip(0, new.levels - 1).astype(np.int64)
    return QuantizedWeight(new.value(level), new, weight.scale * stretch)


def quantizer_with_bits(quantizer: Quantizer, bits: int) -> Quantizer:
    """The quantizer of the same kind with `bits` bits that reaches as far."""
    old, new = quantizer.grid, with_bits(quantizer.grid, bits)
    if new == old:
        return quantizer
    spacing = quantizer.scale * old.max_abs / new.max_abs * new.step
    if new.step == 1:
        umin = -(1 << bits - 1) + (new.levels % 2) if new.offset == 0 and new.lo < 0 else 0
        zero = float(umin - new.lo)
    else:
        umin, zero = 0, -new.lo / new.step
    rounding = quantizer.rounding if quantizer.rounding != "sign" else "half_even"
    if new == grids.bipolar():
        rounding = "sign"
    return Quantizer(new, spacing, zero, umin, rounding, quantizer.zero_first)


def knobs(graph: Graph) -> dict[str, Knob]:
    """Every Conv and Dense by name, with the bits it has now and the quantizers that feed it."""
    sources = _sources(graph)
    found = {}
    for node in graph.nodes:
        if isinstance(node, (Conv, Dense)) and (feeding := sources[node.inputs[0]]):
            by_name = {n.name: n for n in graph.nodes if isinstance(n, Quantize)}
            bits = max(by_name[q].quantizer.grid.bits for q in feeding)
            found[node.name] = Knob(node.name, node.weight.grid.bits, bits, feeding)
    return found


def fixed_quantizers(graph: Graph) -> set[str]:
    """Quantize nodes whose bits cannot change by themselves: a Trunc pool counts their levels."""
    sources = _sources(graph)
    return {
        q
        for n in graph.nodes
        if isinstance(n, Pooling) and n.kind == "avg" and graph.types[n.outputs[0]].quantizer
        for q in sources[n.inputs[0]]
    }


def requantize(graph: Graph, weights: Mapping[str, int], activations: Mapping[str, int]) -> Graph:
    """`graph` with other bits: `weights` by Conv or Dense name, `activations` by Quantize name. Nothing is changed in
    place.

    1-bit weights widen to the kind that the network's other signed weights have. Raises ModelError naming what it does
    not know.
    """
    nodes = {n.name: n for n in graph.nodes}
    for name in (*weights, *activations):
        if name not in nodes:
            raise ModelError(f"{graph.source}: there is no node {name} to give other bits")
    quantize = {n.name: n for n in graph.nodes if isinstance(n, Quantize)}
    kind = _weight_kind(graph)
    sources, new, quantizers = _sources(graph), [], {}
    for node in graph.nodes:
        changed: Node = node
        if isinstance(node, (Conv, Dense)) and weights.get(node.name, node.weight.grid.bits) != node.weight.grid.bits:
            one_bit = node.weight.grid == grids.bipolar()
            changed = replace(node, weight=weight_with_bits(node.weight, weights[node.name], kind if one_bit else None))
        elif isinstance(node, Quantize):
            bits = activations.get(node.name, node.quantizer.grid.bits)
            quantizers[node.name] = (
                quantizer_with_bits(node.quantizer, bits) if bits != node.quantizer.grid.bits else node.quantizer
            )
            changed = replace(node, quantizer=quantizers[node.name])
        new.append(changed)
    types = {}
    for tensor, kept in graph.types.items():
        feeding = sources.get(tensor, ())
        carried = {quantizers[q] for q in feeding}
        if kept.quantizer and len(carried) == 1 and kept.quantizer in {quantize[q].quantizer for q in feeding}:
            kept = TensorType(kept.shape, carried.pop())
        types[tensor] = kept
    return Graph(new, types, graph.inputs, graph.outputs, graph.source, graph.batch, graph.dtypes)


def _weight_kind(graph: Graph) -> str:
    """What 1-bit weights widen to: the kind of the first wider signed weights, else odd."""
    for node in graph.nodes:
        if isinstance(node, (Conv, Dense)) and node.weight.grid != grids.bipolar():
            return kind_of(node.weight.grid)
    return "odd"


def _sources(graph: Graph) -> dict[str, tuple[str, ...]]:
    """Tensor → names of the Quantize nodes whose codes it carries, through pools, reshapes and concats; () for
    float."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(graph.types, ())
    for node in graph.nodes:
        match node:
            case Quantize():
                names: tuple[str, ...] = (node.name,)
            case Pooling(kind="max") | Reshape() | Transpose() | Clip() | Concat():
                names = tuple(dict.fromkeys(q for t in node.inputs for q in found[t]))
                if any(not found[t] for t in node.inputs):
                    names = ()
            case _:
                names = ()
        for t in node.outputs:
            found[t] = names
    return found
