"""Regions of float operators to a Relax module: a function for each, its parameters the plain tensors that it reads.

Nothing is said by names: a function returns the region's results, in their order, as one tuple.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from mpcompile.compiler.float_regions.onnx_ops import Imported, emit_float_op, import_float_op
from mpcompile.compiler.float_regions.regions import Region
from mpcompile.errors import ModelError
from mpcompile.ir.graph import Concat, FloatOp, Graph, Node, Reshape, Transpose


@dataclass(frozen=True, eq=False)
class Emitted:
    """`mod`: a function for each region, by its name. `nodes`: variable (the object) → the node that it was emitted for,
    with which calls are labelled where TVM keeps the variable."""

    mod: tvm.IRModule
    nodes: Mapping[Any, str]


def emit_regions(graph: Graph, regions: Sequence[Region]) -> Emitted:
    """Raises ModelError naming a FloatOp that TVM does not have."""
    # What a user's model can make fail comes first: a builder that an exception leaves behind says so on stderr.
    imported = {
        id(n): import_float_op(n, *([graph.types[t].shape for t in ts] for ts in (n.inputs, n.outputs)))
        for region in regions
        for n in region.nodes
        if isinstance(n, FloatOp)
    }
    builder = relax.BlockBuilder()
    nodes: dict[Any, str] = {}
    for region in regions:
        _Emitter(graph, region, imported, builder, nodes).function()
    return Emitted(builder.get(), nodes)


class _Emitter:
    """Emits one region.

    `plain`: tensor → its variable, without a batch axis. `batched`: the same with a batch axis of 1, as FloatOps pass
    them on, so that TVM sees chains to fuse; between the two lies a reshape, which TVM never fuses.
    """

    def __init__(
        self,
        graph: Graph,
        region: Region,
        imported: Mapping[int, Imported],
        builder: relax.BlockBuilder,
        nodes: dict[Any, str],
    ):
        self.graph, self.region, self.imported, self.builder, self.nodes = graph, region, imported, builder, nodes
        self.plain: dict[str, Any] = {}
        self.batched: dict[str, Any] = {}

    def function(self) -> None:
        self.plain = {t: relax.Var(f"in{i}", self._type(t)) for i, t in enumerate(self.region.inputs)}
        with self.builder.function(self.region.name, list(self.plain.values())):
            with self.builder.dataflow():
                for node in self.region.nodes:
                    self._node(node)
                results = self.builder.emit_output(relax.Tuple([self.plain[t] for t in self.region.results]))
            self.builder.emit_func_output(results)

    def _node(self, node: Node) -> None:
        def emit(value: Any) -> Any:
            """Binds `value` to a new variable and remembers which node it is for."""
            variable = self.builder.emit(value)
            self.nodes[variable] = node.name
            return variable

        match node:
            case FloatOp():
                self._float_op(node, emit)
            case Reshape():
                self.plain[node.outputs[0]] = emit(relax.op.reshape(self.plain[node.inputs[0]], node.shape))
            case Transpose():
                value = relax.op.permute_dims(self.plain[node.inputs[0]], list(node.perm))
                self.plain[node.outputs[0]] = emit(value)
            case Concat():
                self.plain[node.outputs[0]] = emit(relax.op.concat([self.plain[t] for t in node.inputs], 0))
            case _:
                raise ModelError(f"node {node.name} ({node.op}) is no float operator")

    def _float_op(self, node: FloatOp, emit) -> None:
        for t in node.inputs:
            if t not in self.batched:
                self.batched[t] = emit(relax.op.reshape(self.plain[t], (1, *self.graph.types[t].shape)))
        shapes = [self.graph.types[t].shape for t in node.outputs]
        args = [self.batched[t] for t in node.inputs]
        for t, value in zip(node.outputs, emit_float_op(self.imported[id(node)], args, shapes, emit)):
            self.batched[t] = value
            self.plain[t] = emit(relax.op.reshape(value, self.graph.types[t].shape))

    def _type(self, tensor: str) -> Any:
        return relax.TensorType(self.graph.types[tensor].shape, "float32")
