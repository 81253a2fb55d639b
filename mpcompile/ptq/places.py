"""Where a float network gets quantizers: at the input of every contraction with constant weights, one a tensor, and, at 8
bits, where an operator between two contractions has a form on codes only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from mpcompile.ptq.float_model import FloatModel

CONTRACTIONS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
PASSING = ("MaxPool", "GlobalMaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout")
"""Operators that only pick or move values: quantizing before them is quantizing after them, and they move fewer bytes."""
FUNCTIONS = frozenset(
    """
    Celu Elu Erf Exp Gelu HardSigmoid HardSwish Mish Selu Sigmoid Softplus Softsign Swish Tanh ThresholdedRelu
    """.split()
)
"""Functions of one tensor that are tables over codes."""
BY_ELEMENT = FUNCTIONS | {"Clip", "Relu", "LeakyRelu"}


@dataclass(frozen=True)
class Layer:
    """A contraction. `weight`: its constant. `axis`: the output channels' in it (of a ConvTranspose those of a group).
    `tensors`: what its input is made of by picking and moving alone: several behind a Concat. `weights` numbers, `macs` for
    each sample."""

    name: str
    op: str
    weight: str
    axis: int
    tensors: tuple[str, ...]
    weights: int
    macs: int


@dataclass(frozen=True)
class Places:
    """`layers`: in the file's order. `helpers`: tensors that are quantized to 8 bits beside. `first` and `last`: names of
    the layers that read an input of the model, or whose result no other layer reads. `float_layers`: contractions that stay
    float → why."""

    layers: dict[str, Layer]
    helpers: tuple[str, ...]
    first: frozenset[str]
    last: frozenset[str]
    float_layers: dict[str, str]

    @property
    def tensors(self) -> list[str]:
        """That layers read, each once."""
        return list(dict.fromkeys(t for layer in self.layers.values() for t in layer.tensors))

    def readers(self, tensor: str) -> list[str]:
        return [layer.name for layer in self.layers.values() if tensor in layer.tensors]

    def tied(self) -> list[list[str]]:
        """Tensors in groups that must have as many bits: a layer reads them side by side."""
        group = {t: t for t in self.tensors}

        def root(t: str) -> str:
            while group[t] != t:
                t = group[t]
            return t

        for layer in self.layers.values():
            for t in layer.tensors[1:]:
                group[root(t)] = root(layer.tensors[0])
        found: dict[str, list[str]] = {}
        for t in self.tensors:
            found.setdefault(root(t), []).append(t)
        return list(found.values())


class Wiring:
    """Who writes and who reads each tensor of a graph."""

    def __init__(self, model: FloatModel):
        self.model = model
        nodes = model.proto.graph.node
        self.writer: dict[str, onnx.NodeProto] = {o: n for n in nodes for o in n.output if o}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for t in dict.fromkeys(node.input):
                self.readers.setdefault(t, []).append(node)
        self.outputs = set(model.outputs)

    def constant(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        return self.model.constants.get(node.input[index]) if index < len(node.input) else None

    def contraction(self, node: onnx.NodeProto) -> bool:
        return node.op_type in CONTRACTIONS and self.constant(node, 1) is not None

    def only_codes_read(self, tensor: str) -> bool:
        """Whether all readers of a tensor are contractions, or pass it on to such."""
        if tensor in self.outputs:
            return False
        return all(
            (self.contraction(n) and n.input[0] == tensor)
            or (n.op_type in (*PASSING, "Concat") and self.only_codes_read(n.output[0]))
            for n in self.readers.get(tensor, [])
        )

    def made_of(self, tensor: str) -> Iterator[str]:
        """The tensors before PASSING and Concat operators that a contraction's input is made of."""
        node = self.writer.get(tensor)
        if node is not None and self.only_codes_read(tensor):
            if node.op_type in PASSING:
                yield from self.made_of(node.input[0])
                return
            if node.op_type == "Concat" and all(t not in self.model.constants for t in node.input) and self._maps(node):
                for t in node.input:
                    yield from self.made_of(t)
                return
        yield tensor

    def _maps(self, node: onnx.NodeProto) -> bool:
        """Whether a Concat joins channels."""
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        rank = len(self.model.shapes.get(node.input[0], ()))
        return axis == 1 or (rank > 0 and axis % rank == 1)

    def before_elements(self, tensor: str, through: Iterable[str]) -> str:
        """The tensor that `tensor` is a function of, element by element, through operators of one input and arithmetic with
        one number."""
        node = self.writer.get(tensor)
        if node is None:
            return tensor
        if node.op_type in through:
            return self.before_elements(node.input[0], through)
        if node.op_type in ("Mul", "Add", "Div", "Sub"):
            numbers = [t for t in node.input if t in self.model.constants and self.model.constants[t].size == 1]
            others = [t for t in node.input if t not in self.model.constants]
            if len(numbers) == len(others) == 1:
                return self.before_elements(others[0], through)
        return tensor


def find_places(model: FloatModel, refused: dict[str, str] | None = None) -> Places:
    """All places of a model, but for layers that are `refused` (name → why)."""
    wiring, refused = Wiring(model), refused or {}
    layers: dict[str, Layer] = {}
    float_layers: dict[str, str] = {}
    for node in model.proto.graph.node:
        if node.op_type not in CONTRACTIONS:
            continue
        why = refused.get(node.name) or _unfit(node, wiring)
        if why:
            float_layers[node.name] = why
            continue
        layers[node.name] = _layer(node, wiring)
    reached = {t: _reaches(t, wiring) for layer in layers.values() for t in layer.tensors}
    by_name = {n.name: n for n in model.proto.graph.node}
    first = {name for name, layer in layers.items() if any(reached[t] for t in layer.tensors)}
    last = {name for name in layers if _ends(by_name[name].output[0], wiring, set(layers))}
    return Places(layers, tuple(_helpers(model, wiring)), frozenset(first), frozenset(last), float_layers)


def _unfit(node: onnx.NodeProto, wiring: Wiring) -> str:
    """Why a contraction stays float; "" where it does not."""
    weight = wiring.constant(node, 1)
    if weight is None or weight.dtype != np.float32:
        return "its weights are computed at run time"
    attributes = {a.name: a for a in node.attribute}
    if node.op_type == "Gemm" and "transA" in attributes and attributes["transA"].i:
        return "its input is transposed"
    if node.op_type in ("Conv", "ConvTranspose") and weight.ndim not in (3, 4):
        return f"it is over {weight.ndim - 2} axes"
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"its weights have {weight.ndim} axes"
    return ""


def _layer(node: onnx.NodeProto, wiring: Wiring) -> Layer:
    weight = wiring.constant(node, 1)
    assert weight is not None
    attributes = {a.name: a for a in node.attribute}
    axis = 0
    as_stored = node.op_type == "Gemm" and "transB" in attributes and attributes["transB"].i
    if node.op_type in ("MatMul", "ConvTranspose", "Gemm") and not as_stored:
        axis = 1
    spread = node.op_type == "ConvTranspose"  # every place of its input, not of its output, meets all weights
    shape = wiring.model.shapes.get(node.input[0] if spread else node.output[0], ())[1:]
    places = math.prod(n or 1 for n in (shape[1:] if node.op_type in ("Conv", "ConvTranspose") else shape[:-1]))
    tensors = tuple(dict.fromkeys(wiring.made_of(node.input[0])))
    return Layer(node.name, node.op_type, node.input[1], axis, tensors, weight.size, weight.size * places)


def _reaches(tensor: str, wiring: Wiring) -> bool:
    """Whether a tensor is made of a model input without a contraction."""
    seen, left = set(), [tensor]
    while left:
        t = left.pop()
        if t in wiring.model.inputs:
            return True
        node = wiring.writer.get(t)
        if node is None or t in seen or wiring.contraction(node):
            continue
        seen.add(t)
        left += [i for i in node.input if i and i not in wiring.model.constants]
    return False


def _ends(tensor: str, wiring: Wiring, layers: set[str]) -> bool:
    """Whether no layer reads what is made of a tensor."""
    seen, left = set(), [tensor]
    while left:
        t = left.pop()
        for node in wiring.readers.get(t, []):
            if node.name in layers:
                return False
            left += [o for o in node.output if o and o not in seen]
            seen |= set(node.output)
    return True


def _helpers(model: FloatModel, wiring: Wiring) -> Iterator[str]:
    """What functions, and products and sums of tensors that differ in shape, read: nothing else lets them be computed on
    codes."""
    found: dict[str, None] = {}
    rank_two = {t for t, s in model.shapes.items() if 2 <= len(s) <= 4}
    for node in model.proto.graph.node:
        given = [t for t in node.input if t and t not in model.constants]
        if node.op_type in FUNCTIONS and len(given) == 1:
            found[wiring.before_elements(given[0], ())] = None
        elif node.op_type in ("Mul", "Add", "Sub") and len(given) == 2:
            shapes = [model.shapes.get(t) for t in given]
            roots = [wiring.before_elements(t, BY_ELEMENT) for t in given]
            if node.op_type == "Mul" and roots[0] == roots[1]:
                found[roots[0]] = None
            elif (node.op_type == "Mul" or shapes[0] != shapes[1]) and all(t in rank_two for t in given):
                found.update(dict.fromkeys(given))
    yield from found
