"""The module itself: layers and operators of a file, run one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from torch import Tensor, nn

from mpcompile.errors import ModelError
from mpcompile.search.trace.onnx_file.activations import whole_functions
from mpcompile.search.trace.onnx_file.layers import batch_norm, convolution, layer_norm, linear, transposed
from mpcompile.search.trace.onnx_file.node import FileNode, attributes_of
from mpcompile.search.trace.onnx_file.operators import MAKERS


@dataclass(frozen=True)
class Step:
    """`module`: the name of the one that runs; tensors by their names in the file."""

    module: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


class OnnxNetwork(nn.Module):
    """`proto`: of standard operators in an opset from 17 on, in float32, its nodes named and in order, all shapes known but
    the batch's; `source`: what messages call it. One input [N, …]; a tensor, or a tuple of the file's outputs. A layer is
    called as its weights are, where they end in ".weight", and by its node's name otherwise.

    Raises ModelError, naming the node, at what torch's modules do not compute.
    """

    def __init__(self, proto: onnx.ModelProto, source: str):
        super().__init__()
        constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        inputs = [v.name for v in proto.graph.input if v.name not in constants]
        if len(inputs) != 1:
            raise ModelError(f"{source} has {len(inputs)} inputs ({', '.join(inputs)}); one would be accepted")
        self.input, self.outputs = inputs[0], tuple(o.name for o in proto.graph.output)
        self._source, self._taken = source, {"input", "outputs", "steps"}
        self.steps: list[Step] = []
        self._put(list(_nodes(proto, constants, source)))
        written = {self.input, *(t for step in self.steps for t in step.writes)}
        for name in self.outputs:
            if name not in written:
                raise ModelError(f"{source}: output {name} is not computed from the input by modules")
        for step in self.steps:
            if missing := [n for n in step.reads if n not in written]:
                raise ModelError(f"{source}: node {step.module} reads {missing[0]}, which no module computes")
        last = {name: at for at, step in enumerate(self.steps) for name in step.reads}
        self._done = [[n for n, at in last.items() if at == step] for step in range(len(self.steps))]

    def forward(self, x: Tensor) -> Any:
        values = {self.input: x}
        for step, done in zip(self.steps, self._done, strict=True):
            found = self.get_submodule(step.module)(*(values[name] for name in step.reads))
            values.update(zip(step.writes, (found,) if isinstance(found, Tensor) else found))
            for name in done:
                if name not in self.outputs:
                    del values[name]
        found = tuple(values[name] for name in self.outputs)
        return found[0] if len(found) == 1 else found

    # -- how it is put together -----------------------------------------------------------------------
    def _put(self, nodes: list[FileNode]) -> None:
        functions = whole_functions(nodes, _maker, frozenset(self.outputs))
        pieces = {name for _, _, names in functions.values() for name in names}
        biases = _biases(nodes, self.outputs)
        sums = {add.name for add, _ in biases.values()}
        for node in nodes:
            if node.outputs[0] in functions:
                start, function, _ = functions[node.outputs[0]]
                self._add(node, node.name, function, (start,))
            elif node.name in pieces or node.name in sums:
                continue
            elif node.op in ("Conv", "ConvTranspose") and 1 in node.constants:
                self._convolution(node)
            elif node.op == "Gemm" and self._is_linear(node):
                weight = node.constants[1] if node.attribute("transB", 0) else node.constants[1].T
                self._add(node, self._layer(node), linear(weight, node.constants.get(2)))
            elif node.op == "MatMul" and node.constants.keys() == {1} and node.constants[1].ndim == 2:
                add, bias = biases.get(node.outputs[0], (node, None))
                self._add(node, self._layer(node), linear(node.constants[1].T, bias), writes=add.outputs)
            elif node.op == "BatchNormalization":
                self._add(node, self._layer(node, 1), batch_norm(node))
            elif node.op == "LayerNormalization":
                self._add(node, self._layer(node, 1), layer_norm(node))
            else:
                self._add(node, node.name, _maker(node))

    def _convolution(self, node: FileNode) -> None:
        name = self._layer(node)
        if node.op == "ConvTranspose":
            self._add(node, name, transposed(node))
            return
        padding, made = convolution(node)
        if padding is None:
            self._add(node, name, made)
            return
        padded = f"{node.inputs[0]} padded for {node.name}"
        self._add(node, f"{node.name}_pad", padding, writes=(padded,))
        self._add(node, name, made, (padded,))

    def _is_linear(self, node: FileNode) -> bool:
        plain = not node.attribute("transA", 0) and node.attribute("alpha", 1.0) == node.attribute("beta", 1.0) == 1.0
        bias = 2 in node.constants or not node.given(2)
        flat = 2 not in node.constants or node.constants[2].ndim < 2
        return plain and bias and flat and 1 in node.constants and 0 not in node.constants

    def _add(
        self,
        node: FileNode,
        name: str,
        module: nn.Module,
        reads: tuple[str, ...] | None = None,
        writes: tuple[str, ...] | None = None,
    ) -> None:
        if reads is None:
            reads = tuple(n for at, n in enumerate(node.inputs) if n and at not in node.constants)
        path = self._place(name)
        parent, _, own = path.rpartition(".")
        home: nn.Module = self
        for part in parent.split(".") if parent else ():
            if part not in home._modules:
                home.add_module(part, nn.Module())
            home = home.get_submodule(part)
        home.add_module(own, module)
        several = (
            node.outputs if node.op == "Split" else node.outputs[:1]
        )  # others tell how they came about: indices, means
        self.steps.append(Step(path, reads, several if writes is None else writes))

    def _place(self, name: str) -> str:
        """A name that no module has, of which none is within another that runs."""
        path = ".".join(part for part in name.replace("/", ".").split(".") if part) or "node"
        path = ".".join(f"{part}_" if hasattr(nn.Module, part) else part for part in path.split("."))
        base, number = path, 1
        while path in self._taken or any(t.startswith(path + ".") or path.startswith(t + ".") for t in self._taken):
            path, number = f"{base.replace('.', '_')}_{number}", number + 1
        self._taken.add(path)
        return path

    @staticmethod
    def _layer(node: FileNode, index: int = 1) -> str:
        weight = node.inputs[index]
        if weight.endswith(".weight") and weight != ".weight" and weight != f"{node.name}.weight":
            return weight.removesuffix(".weight")
        return _module_path(node)


def _nodes(proto: onnx.ModelProto, constants: dict[str, np.ndarray], source: str) -> Iterator[FileNode]:
    values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    shapes: dict[str, tuple[int | None, ...]] = {
        v.name: tuple(d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim)
        for v in values
        if v.type.tensor_type.HasField("shape")
    }
    shapes |= {name: array.shape for name, array in constants.items()}
    for node in proto.graph.node:
        own = {at: constants[name] for at, name in enumerate(node.input) if name in constants}
        yield FileNode(
            source, node.name, node.op_type, tuple(node.input), tuple(node.output), attributes_of(node), own, shapes
        )


def _module_path(node: FileNode) -> str:
    """torch.onnx's older exporter names a node by the modules around it, the children of a Sequential with its name again:
    /features/features.0/features.0.0/Conv is features.0.0."""
    scopes: list[str] = []
    for part in node.name.split("/"):
        if scopes and part.startswith(scopes[-1] + "."):
            scopes[-1] = part
        elif part:
            scopes.append(part)
    if len(scopes) > 1 and scopes[-1].partition("_")[0] == node.op:
        scopes.pop()
    return ".".join(scopes) or node.op


def _maker(node: FileNode) -> nn.Module:
    if node.op not in MAKERS:
        raise node.refused("no module computes it; give the network as an nn.Module")
    return MAKERS[node.op](node)


def _biases(nodes: Sequence[FileNode], kept: Sequence[str]) -> dict[str, tuple[FileNode, np.ndarray]]:
    """Output of a product → the sum that adds a constant of each of its columns, where nobody else reads the product."""
    uses = Counter(name for node in nodes for name in node.inputs)
    products = {n.outputs[0]: n for n in nodes if n.op == "MatMul" and n.constants.keys() == {1}}
    found = {}
    for node in nodes:
        if node.op == "Add" and len(node.constants) == 1:
            at = next(iter(node.constants))
            product, bias = node.inputs[1 - at], node.constants[at]
            if product in products and uses[product] == 1 and product not in kept:
                columns = products[product].constants[1].shape[-1]
                if bias.shape == (columns,):
                    found[product] = node, bias
    return found
