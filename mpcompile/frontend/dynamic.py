"""Dynamic quantization, as ONNX Runtime's quantize_dynamic writes it: codes whose scale and zero point are computed at run
time.

    DynamicQuantizeLinear(x)  →  u = clip(round(x/s) + z, 0, 255), s and z from the least and greatest x of the sample

Scales are of a sample: samples of a batch do not see each other. integers.py has what reads the codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx.helper import make_node

from mpcompile.errors import ModelError
from mpcompile.frontend.floatop import emit_nodes
from mpcompile.frontend.importer import Importer, Source, operator
from mpcompile.frontend.values import Activation, DynamicCodes, IntegerInput

LAST = 255
"""The greatest code: DynamicQuantizeLinear writes uint8 only."""


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(imp: Importer, node: Source):
    """Its outputs: codes, the scale as a real tensor, the zero point as an integer one."""
    if (imp.graph.batch or 1) > 1:
        raise ModelError(
            f"{node}: one scale over a batch of {imp.graph.batch}; a batch of 1, or a dynamic one, whose samples have "
            "scales of their own, would be accepted"
        )
    x = imp.tensor(node, 0)
    rank = len(imp.type(x).shape) + 1
    if rank < 2:
        raise ModelError(f"{node}: a tensor of the batch axis alone; one of at least two axes would be accepted")
    one = (1,) * rank
    scale, zero = (imp.unique(f"{node.outputs[0]}.{what}") for what in ("scale", "zero"))
    axes = list(range(1, rank))
    nodes = [
        make_node("ReduceMax", [x], ["most"], axes=axes, keepdims=1),
        make_node("ReduceMin", [x], ["least"], axes=axes, keepdims=1),
        make_node("Max", ["most", "none"], ["high"]),
        make_node("Min", ["least", "none"], ["low"]),
        make_node("Sub", ["high", "low"], ["range"]),
        make_node("Div", ["range", "last"], ["step"]),
        make_node("Equal", ["range", "none"], ["flat"]),
        make_node("Where", ["flat", "unit", "step"], [scale]),
        make_node("Div", ["low", scale], ["below"]),
        make_node("Sub", ["none", "below"], ["first"]),
        make_node("Clip", ["first", "none", "last"], ["inside"]),
        make_node("Round", ["inside"], [zero]),
    ]
    values = {"none": 0, "last": LAST, "unit": 1}
    constants = {name: np.full((), value, np.float32) for name, value in values.items()}
    emit_nodes(imp, node.name, node.op_type, nodes, [x], {scale: one, zero: one}, constants)
    codes = imp.unique(f"{node.outputs[0]}.codes")
    write_codes(imp, node, codes, x, scale, zero)
    imp.define(node, DynamicCodes(codes, x, scale, zero), "UINT8")
    for index, value, dtype in ((1, Activation(scale), "FLOAT"), (2, IntegerInput(zero), "UINT8")):
        if index < len(node.outputs) and node.outputs[index]:
            imp.values[node.outputs[index]] = value
            imp.set_type(node.outputs[index], dtype)


def write_codes(imp: Importer, node: Source, output: str, x: str, scale: str, zero: str, pads: Sequence = ()) -> None:
    """Emits u, in float32, of `x` with zeros around it (before, after) per spatial axis."""
    shape, padded = (1, *imp.type(x).shape), x
    nodes = []
    constants: dict[str, np.ndarray] = {"none": np.zeros((), np.float32), "last": np.full((), LAST, np.float32)}
    if np.any(pads):
        padded = "padded"
        around = [(0, 0), (0, 0), *pads]
        constants["around"] = np.array([a for a, _ in around] + [b for _, b in around], np.int64)
        nodes = [make_node("Pad", [x, "around"], [padded])]
        shape = tuple(s + a + b for s, (a, b) in zip(shape, around))
    nodes += [
        make_node("Div", [padded, scale], ["steps"]),
        make_node("Round", ["steps"], ["whole"]),
        make_node("Add", ["whole", zero], ["moved"]),
        make_node("Clip", ["moved", "none", "last"], [output]),
    ]
    emit_nodes(imp, f"{node.name}.codes", node.op_type, nodes, [x, scale, zero], {output: shape}, constants)


def dequantize(imp: Importer, node: Source, codes: DynamicCodes) -> None:
    """DequantizeLinear of them, (u − z)·s. Raises ModelError at another scale or zero point than their own."""
    scale, zero = imp.value(node, 1), imp.optional(node, 2)
    own = isinstance(scale, Activation) and scale.tensor == codes.scale
    if not own or not isinstance(zero, IntegerInput) or zero.tensor != codes.zero:
        raise ModelError(f"{node}: a scale or zero point of something else than its codes; their own would be accepted")
    output = imp.unique(f"{node.outputs[0]}.real")
    nodes = [make_node("Sub", [codes.tensor, codes.zero], ["u"]), make_node("Mul", ["u", codes.scale], [output])]
    shape = (1, *imp.type(codes.tensor).shape)
    emit_nodes(imp, node.name, node.op_type, nodes, [codes.tensor, codes.zero, codes.scale], {output: shape}, {})
    imp.define(node, Activation(output))
