"""The float network with quantizers put in, whatever these are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx

from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.places import Places, Wiring

Quantizer = Callable[[str, str], list[onnx.NodeProto]]
"""(tensor, output) → nodes that write the quantized tensor under that name."""


def quantized_name(tensor: str) -> str:
    return f"{tensor}.quantized"


def rewired(
    model: FloatModel, places: Places, quantizer: Quantizer, weights: Mapping[str, list[onnx.NodeProto]] | None = None
) -> onnx.ModelProto:
    """A copy in which layers, functions and products read quantized tensors, each right behind what writes it. What a
    quantized tensor is compared or added to by others stays float. `weights`: layer → nodes before it, of which the last
    writes its weights.
    """
    wiring, weights = Wiring(model), weights or {}
    passed = _passed(places, wiring)
    helpers = set(places.helpers)
    quantized = {*places.tensors, *helpers}
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.node[:]
    made: list[onnx.NodeProto] = []

    def write(tensor: str) -> None:
        if tensor in quantized:
            made.extend(quantizer(tensor, quantized_name(tensor)))

    for name in model.inputs:
        write(name)
    for source in model.proto.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(source)
        is_layer = node.name in places.layers
        for i, t in enumerate(node.input):
            reads_codes = (
                (is_layer and i == 0)
                or node.name in passed
                or (t in helpers and node.op_type != "Add")
                or (t in helpers and _uneven(node, model))
            )
            if t in quantized and reads_codes:
                node.input[i] = quantized_name(t)
        if is_layer and node.name in weights:
            made.extend(weights[node.name])
            node.input[1] = weights[node.name][-1].output[0]
        made.append(node)
        for t in node.output:
            write(t)
    proto.graph.node.extend(made)
    return proto


def _passed(places: Places, wiring: Wiring) -> set[str]:
    """Names of the nodes between quantizers and layers, which pass codes on."""
    found, ends = set(), set(places.tensors)
    by_name = {n.name: n for n in wiring.model.proto.graph.node}
    left = [by_name[layer].input[0] for layer in places.layers]
    while left:
        t = left.pop()
        if t in ends:
            continue
        node = wiring.writer[t]
        if node.name not in found:
            found.add(node.name)
            left += [i for i in node.input if i and i not in wiring.model.constants]
    return found


def _uneven(node: onnx.NodeProto, model: FloatModel) -> bool:
    """Whether the inputs of an operator differ in shape."""
    return len({model.shapes.get(t) for t in node.input if t not in model.constants}) > 1
