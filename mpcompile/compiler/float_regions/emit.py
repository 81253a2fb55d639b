"""Regions of float operators to a Relax module: a function for each, its parameters the plain tensors that it reads.

A function returns the region's results, in their order, as one tuple. Variables are named after the tensors and nodes
of the graph, for readers: TVM names a kernel's buffers after them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.onnx_ops import Imported, emit_float_op, import_float_op, reshape
from mpcompile.compiler.float_regions.regions import Region
from mpcompile.errors import ModelError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import FloatOp, Graph, Node, Reshape, Transpose
from mpcompile.ir.layer import Layer


@dataclass(frozen=True, eq=False)
class Emitted:
    """`mod`: a function for each region, by its name. `nodes`: variable (the object) → the node that it was emitted for,
    with which calls are labelled where TVM keeps the variable."""

    mod: tvm.IRModule
    nodes: Mapping[Any, str]


def emit_regions(graph: Graph, regions: Sequence[Region], vectors: Vectors) -> Emitted:
    """`vectors`: of the target. Raises ModelError naming a FloatOp that TVM does not have."""
    # What a user's model can make fail comes first: a builder that an exception leaves behind says so on stderr.
    imported = {
        id(n): import_float_op(n, _shapes(graph, n.inputs), _shapes(graph, n.outputs), vectors)
        for region in regions
        for n in region.nodes
        if isinstance(n, FloatOp)
    }
    nodes: dict[Any, str] = {}
    names, called = _Names(), _Names()
    for region in regions:
        called.new(region.name)
    functions: dict[Any, Any] = {}
    for region in regions:
        functions |= _Emitter(graph, region, imported, names, called, nodes).functions()
    return Emitted(tvm.IRModule(functions), nodes)


def _shapes(graph: Graph, tensors: Sequence[str]) -> list[tuple[int, ...]]:
    return [graph.types[t].shape for t in tensors]


class _Emitter:
    """Emits one region. `names` are variables', `called` functions'.

    `plain`: tensor → its variable, without a batch axis. `batched`: the same with a batch axis of 1, as FloatOps pass
    them on, so that TVM sees chains to fuse; between the two lies a reshape, which TVM never fuses.
    """

    def __init__(
        self,
        graph: Graph,
        region: Region,
        imported: Mapping[int, Imported],
        names: _Names,
        called: _Names,
        nodes: dict[Any, str],
    ):
        self.graph, self.region, self.imported = graph, region, imported
        self.names, self.called, self.nodes = names, called, nodes
        self.builder = relax.BlockBuilder()
        self.by_layer = {t for n in graph.nodes if isinstance(n, Layer) for t in n.outputs}
        self.plain: dict[str, Any] = {}
        self.batched: dict[str, Any] = {}

    def functions(self) -> dict[Any, Any]:
        """The region's Relax function, and PrimFuncs that it calls already, by their GlobalVars."""
        self.plain = {t: relax.Var(self._name(t), self._type(t)) for t in self.region.inputs}
        with self.builder.function(self.region.name, list(self.plain.values())):
            with self.builder.dataflow():
                for node in self.region.nodes:
                    self._node(node)
                results = self.builder.emit_output(relax.Tuple([self.plain[t] for t in self.region.results]))
            self.builder.emit_func_output(results)
        return dict(self.builder.get().functions.items())  # pyright: ignore[reportAttributeAccessIssue]

    def _node(self, node: Node) -> None:
        match node:
            case FloatOp():
                self._float_op(node)
            case Reshape():
                self._bind(node, reshape(self.plain[node.inputs[0]], node.shape))
            case Transpose():
                turned = relax.op.permute_dims(self.plain[node.inputs[0]], list(node.perm))
                self._bind(node, self._emit(turned, node, self.names.new(node.name)))
            case _:
                raise ModelError(f"node {node.name} ({node.op}) is no float operator")

    def _float_op(self, node: FloatOp) -> None:
        for t in node.inputs:
            if t not in self.batched:
                value = reshape(self.plain[t], (1, *self.graph.types[t].shape))
                self.batched[t] = self._emit(value, node, self.names.of(f"{t} batched", node.name))
        shapes = [self.graph.types[t].shape for t in node.outputs]
        args = [self.batched[t] for t in node.inputs]

        def emit(value: Any) -> Any:
            return self._emit(value, node, self.names.new(node.name))

        def add(function: Any, name: str) -> Any:
            name = self.called.new(name)
            return self.builder.add_func(function.with_attr("global_symbol", name), name)

        for t, value in zip(node.outputs, emit_float_op(self.imported[id(node)], args, shapes, emit, add)):
            self.batched[t] = value
            self.names.keep(f"{t} batched", value.name)
            self.plain[t] = self._emit(reshape(value, self.graph.types[t].shape), node, self._name(t))

    def _bind(self, node: Node, value: Any) -> None:
        """`value` is the node's output."""
        self.plain[node.outputs[0]] = self._emit(value, node, self._name(node.outputs[0]))

    def _emit(self, value: Any, node: Node, name: str) -> Any:
        """Binds `value` to a new variable and remembers which node it is for."""
        variable = self.builder.emit(value, name)
        self.nodes[variable] = node.name
        return variable

    def _name(self, tensor: str) -> str:
        """Of the variable that holds the plain tensor; the same in every region."""
        return self.names.of(tensor, Buffer(tensor, "plain", ()).key if tensor in self.by_layer else tensor)

    def _type(self, tensor: str) -> Any:
        shape: Any = self.graph.types[tensor].shape
        return relax.TensorType(shape, "float32")


class _Names:
    """Identifiers that resemble what they are for, no two the same, and none that Relax would number itself."""

    def __init__(self):
        self._taken: set[str] = set()
        self._known: dict[str, str] = {}

    def of(self, what: str, wanted: str) -> str:
        """The name of `what`; where it has none yet, one that resembles `wanted`."""
        if what not in self._known:
            self._known[what] = self.new(wanted)
        return self._known[what]

    def keep(self, what: str, name: str) -> None:
        """`name`, which `new` gave, is that of `what`."""
        self._known.setdefault(what, name)

    def new(self, wanted: str) -> str:
        base = re.sub(r"\W+", "_", wanted).strip("_") or "x"
        base = f"v{base}" if base[0].isdigit() else base
        name, n = base, 1
        while name in self._taken:
            n += 1
            name = f"{base}__{n}"
        self._taken.add(name)
        return name
