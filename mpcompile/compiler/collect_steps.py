"""A fused graph, its kernels and its float regions' code to the steps of a plan: which bytes each call reads and writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpcompile.compiler.float_regions.lower import FloatCode
from mpcompile.compiler.float_regions.read import Input, Value, Written
from mpcompile.compiler.float_regions.regions import Region, Unit
from mpcompile.compiler.lower_layers import NamedKernel
from mpcompile.compiler.passes.choose_formats import FormatChoice
from mpcompile.compiler.steps import Steps, Store
from mpcompile.errors import ModelError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Graph, Reshape
from mpcompile.ir.layer import Layer
from mpcompile.kernels.tvm_names import PrimFunc, prim_func, te


@dataclass(frozen=True, eq=False)
class Collected:
    """`stored`: every buffer of an activation, in the graph's order, and the bytes that hold it; a view has those of what
    it shows. Model inputs and outputs are the caller's."""

    steps: Steps
    stored: Mapping[Buffer, Store]


def collect_steps(
    graph: Graph, units: Sequence[Unit], assignment: FormatChoice, kernels: Mapping[str, NamedKernel], floats: FloatCode
) -> Collected:
    """`units`: the graph split into layers, views and regions; `kernels`: layer → its kernel.

    A model output is written straight into the caller's array. One that is a model input, a constant or another output's
    bytes gets a copying call. Raises ModelError naming the node that asks for a form that nothing stores.
    """
    collector = _Collector(graph, assignment)
    for tensor in graph.inputs:
        collector.input(tensor)
    for unit in units:
        match unit:
            case Layer():
                collector.layer(unit, kernels[unit.name])
            case Reshape():
                collector.view(unit)
            case Region():
                collector.region(unit, floats)
    collector.outputs()
    rank = {t: i for i, t in enumerate([*graph.inputs, *(t for n in graph.nodes for t in n.outputs)])}
    stored = sorted(collector.stored.items(), key=lambda found: rank[found[0].tensor])
    return Collected(collector.steps, dict(stored))


class _Collector:
    def __init__(self, graph: Graph, assignment: FormatChoice):
        self.graph, self.assignment = graph, assignment
        self.steps = Steps()
        self.stored: dict[Buffer, Store] = {}
        self.writers = {t: n.name for n in graph.nodes for t in n.outputs}

    def input(self, tensor: str) -> None:
        buffer = self._plain(tensor)
        self.stored[buffer] = Store(buffer.nbytes, "input", self.graph.inputs.index(tensor))

    def layer(self, layer: Layer, kernel: NamedKernel) -> None:
        lowered = kernel.lowered
        args = [self._store(b, f"layer {layer.name}") for b in lowered.inputs]
        args += [self.steps.constant(c) for c in lowered.constants]
        sizes = [b.nbytes for b in lowered.outputs]
        written = self.steps.call(kernel.function, lowered.func, args, sizes, layer.name)
        self.stored.update(zip(lowered.outputs, written, strict=True))

    def view(self, node: Reshape) -> None:
        store = self._store(self._plain(node.inputs[0]), f"node {node.name} ({node.op})")
        self._writes_plain(node.outputs[0], f"node {node.name} ({node.op})")
        self.stored[self._plain(node.outputs[0])] = store

    def region(self, region: Region, floats: FloatCode) -> None:
        code = floats.regions[region.name]
        who = f"node {', '.join(n.name for n in region.nodes)}"
        inputs = [self._store(self._plain(t), who) for t in region.inputs]
        constants = [self.steps.constant(c) for c in code.constants]
        written: list[list[Store]] = []

        def store(value: Value) -> Store:
            match value:
                case Input():
                    return inputs[value.index]
                case Written():
                    return written[value.call][value.index]
            return constants[value.index]

        for call in code.calls:
            function = floats.functions[call.function]
            args = [store(a) for a in call.args]
            written.append(self.steps.call(call.function, function, args, call.nbytes, call.node))
        for tensor, value in zip(region.results, code.results, strict=True):
            self._writes_plain(tensor, who)
            self.stored[self._plain(tensor)] = store(value)

    def outputs(self) -> None:
        for i, tensor in enumerate(self.graph.outputs):
            store = self._store(self._plain(tensor), "the model's output")
            if store.space != "workspace":
                count = store.nbytes // 4
                name = f"mp_copy_{count}"
                layer = self.writers.get(tensor, name)
                (store,) = self.steps.call(name, _copy(count), [store], [store.nbytes], layer)
            store.space, store.offset = "output", i

    def _plain(self, tensor: str) -> Buffer:
        return Buffer(tensor, "plain", self.graph.types[tensor].shape)

    def _writes_plain(self, tensor: str, who: str) -> None:
        others = [b.key for b in self.assignment.buffers.get(tensor, []) if b.format != "plain"]
        if others:
            raise ModelError(f"{who} writes {tensor} as plain float32 only, but {', '.join(others)} was chosen")

    def _store(self, buffer: Buffer, who: str) -> Store:
        if buffer not in self.stored:
            there = ", ".join(b.key for b in self.stored if b.tensor == buffer.tensor) or "nothing"
            raise ModelError(f"{who} needs {buffer.key}, but what is stored of {buffer.tensor} is {there}")
        return self.stored[buffer]


def _copy(count: int) -> PrimFunc:
    """Copies `count` float32."""
    source = te.placeholder((count,), "float32", "source")
    return prim_func([source, te.compute((count,), lambda i: source[i], name="copied")], f"mp_copy_{count}")
