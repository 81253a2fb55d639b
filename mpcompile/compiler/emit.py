"""Emits the fused graph to a Relax module: layers as calls of `mpcompile.layer`, all else as TVM's own operators.

Every stored form of a tensor (formats.Buffer) is one variable of `main`, without a batch axis; a view of plain memory
is a `reshape`, which plan_memory turns into the same bytes. `main` takes the model's inputs and returns its outputs,
all plain float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import tvm
from tvm import relax

from mpcompile.compiler import print_graph, relax_ops
from mpcompile.compiler.float_ops import Imported, emit_float_op, import_float_op
from mpcompile.errors import ModelError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Concat, FloatOp, Graph, Reshape, Transpose
from mpcompile.ir.layer import ContractTerm, Layer, PoolTerm

Families = Mapping[str, Mapping[tuple[int, int], str]]


@dataclass
class Emitted:
    """`buffers`: variable → what it stores; `nodes`: variable of a call → its node's name. Passes keep the names."""

    mod: tvm.IRModule
    buffers: dict[str, Buffer] = field(default_factory=dict)
    nodes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Emit:
    """Before: a graph of Layer, FloatOp, Reshape and Transpose nodes, and the buffers and families chosen for it.
    After: a Relax module whose `main` is in A-normal form, one binding a layer and one a buffer of a tuple."""

    buffers: Mapping[str, list[Buffer]]
    families: Families

    def apply(self, graph: Graph) -> Emitted:
        return _Emitter(graph, self.buffers, self.families).module()


class _Emitter:
    def __init__(self, graph: Graph, buffers: Mapping[str, list[Buffer]], families: Families):
        self.graph, self.buffers, self.families = graph, buffers, families
        self.builder = relax.BlockBuilder()
        self.result = Emitted(mod=None)
        self.vars: dict[str, dict[str, relax.Var]] = {}
        self.batched: dict[str, relax.Var] = {}
        """Plain tensors with a batch axis of 1, as float operators pass them on, so that TVM sees chains to fuse."""
        self.taken: set[str] = set()

    def module(self) -> Emitted:
        # What a user's model can make fail comes first: a builder that an exception leaves behind says so on stderr.
        self.imported: dict[int, Imported] = {
            id(n): import_float_op(n, *([self.graph.types[t].shape for t in ts] for ts in (n.inputs, n.outputs)))
            for n in self.graph.nodes
            if isinstance(n, FloatOp)
        }
        params = []
        for name in self.graph.inputs:
            buffer = Buffer(name, "plain", self.graph.types[name].shape)
            params.append(relax.Var(self._name(name), relax_ops.tensor_type(buffer)))
            self._bound(buffer, params[-1])
        with self.builder.function("main", params):
            with self.builder.dataflow():
                for node in self.graph.nodes:
                    self._node(node)
                outputs = [self._plain(t, "the model's output") for t in self.graph.outputs]
                result = self.builder.emit_output(relax.Tuple(outputs))
            self.builder.emit_func_output(result)
        self.result.mod = self.builder.get()
        return self.result

    def _node(self, node) -> None:
        match node:
            case Layer():
                self._layer(node)
            case FloatOp():
                self._float_op(node)
            case Reshape():
                self._bind_plain(node.outputs[0], relax.op.reshape(self._args(node)[0], node.shape), node)
            case Transpose():
                self._bind_plain(node.outputs[0], relax.op.permute_dims(self._args(node)[0], list(node.perm)), node)
            case Concat():
                self._bind_plain(node.outputs[0], relax.op.concat(self._args(node), 0), node)
            case _:
                raise ModelError(f"node {node.name} ({node.op}) is not fused: layers and float operators are compiled")

    def _layer(self, node: Layer) -> None:
        args = [v for t in dict.fromkeys(node.inputs) for v in self.vars[t].values()]
        outputs = [b for t in node.outputs for b in self.buffers[t]]
        if not outputs:
            raise ModelError(f"layer {node.name}: nothing was chosen to be stored of {', '.join(node.outputs)}")
        call = relax_ops.layer_call(node.name, describe(node, self.families.get(node.name, {})), args, outputs)
        if len(outputs) == 1:
            self._bound(outputs[0], self._emit(call, outputs[0].key, node.name))
            return
        together = self._emit(call, node.name, node.name)
        for i, buffer in enumerate(outputs):
            value = relax.TupleGetItem(together, i)
            if buffer.format == "plain":
                value = self._kept(value, buffer.shape, node)
            self._bound(buffer, self._emit(value, buffer.key, node.name))

    def _kept(self, value: relax.Expr, shape: tuple[int, ...], node) -> relax.Expr:
        """`value` behind a view. TVM's fusion takes in what it can and renames its results, never a view: so a variable
        that is bound to a view, or to a layer's call, keeps its name."""
        return relax.op.reshape(self._emit(value, node.name, node.name), shape)

    def _float_op(self, node: FloatOp) -> None:
        def emit(value):
            return self._emit(value, node.name, node.name)

        args = []
        for t, plain in zip(node.inputs, self._args(node)):
            if t not in self.batched:
                self.batched[t] = emit(relax.op.reshape(plain, (1, *self.graph.types[t].shape)))
            args.append(self.batched[t])
        shapes = [self.graph.types[t].shape for t in node.outputs]
        for t, value in zip(node.outputs, emit_float_op(self.imported[id(node)], args, shapes, emit)):
            self.batched[t] = value
            self._bind_plain(t, relax.op.reshape(value, self.graph.types[t].shape), node)

    def _bind_plain(self, tensor: str, value: relax.Expr, node) -> None:
        wanted = self.buffers.get(tensor, [])
        if any(b.format != "plain" for b in wanted):
            raise ModelError(
                f"node {node.name} ({node.op}) writes {tensor} as plain float32 only, "
                f"but {', '.join(b.format for b in wanted)} was chosen"
            )
        buffer = wanted[0] if wanted else Buffer(tensor, "plain", self.graph.types[tensor].shape)
        if value.op.name not in relax_ops.VIEWS:
            value = self._kept(value, buffer.shape, node)
        self._bound(buffer, self._emit(value, tensor, node.name))

    def _args(self, node) -> list[relax.Var]:
        return [self._plain(t, f"node {node.name} ({node.op})") for t in node.inputs]

    def _plain(self, tensor: str, who: str) -> relax.Var:
        found = self.vars.get(tensor, {})
        if "plain" not in found:
            stored = ", ".join(found) or "nothing"
            raise ModelError(f"{who} needs {tensor} as plain float32, but it is stored as {stored}")
        return found["plain"]

    def _emit(self, value: relax.Expr, name: str, node: str) -> relax.Var:
        """Binds `value` to a fresh variable and remembers which node it is for."""
        name = self._name(name)
        self.result.nodes[name] = node
        return self.builder.emit(value, name)

    def _bound(self, buffer: Buffer, var: relax.Var) -> None:
        self.vars.setdefault(buffer.tensor, {})[f"{buffer.format}{buffer.beside}"] = var
        self.result.buffers[var.name] = buffer

    def _name(self, wanted: str) -> str:
        """A fresh identifier that resembles `wanted`; never one that Relax would number itself."""
        base = re.sub(r"\W+", "_", wanted).strip("_") or "x"
        base = f"v{base}" if base[0].isdigit() else base
        name, n = base, 1
        while name in self.taken:
            n += 1
            name = f"{base}__{n}"
        self.taken.add(name)
        return name


def describe(node: Layer, families: Mapping[tuple[int, int], str]) -> str:
    """One line for a reader: the terms with their families, then the epilogue's instructions."""
    terms = []
    for i, term in enumerate(node.terms):
        if isinstance(term, ContractTerm):
            terms += [f"{print_graph.part_text(p)} [{families.get((i, n), '?')}]" for n, p in enumerate(term.parts)]
        elif isinstance(term, PoolTerm):
            terms.append(f"{term.kind} {term.kernel[0]}x{term.kernel[1]}")
        else:
            terms.append(f"view {term.input}")
    return " + ".join(terms) + " | " + " ".join(type(i).__name__ for i in node.epilogue)
