"""A network at its chosen bits → QONNX, exactly: the file gives the codes that the fake-quantized forward gives.

| network                        | file                                                                  |
|--------------------------------|-----------------------------------------------------------------------|
| weights on the odd grid, b > 1 | IntQuant, unsigned, scale 2/(2^b − 1), zero point (2^b − 1)/2, a half |
| weights at one bit             | BipolarQuant                                                          |
| PACT activations               | IntQuant, unsigned, scale α/(2^b − 1), zero point 0                   |
| none                           | nothing: float32                                                      |

The weights that are stored are the quantized ones, so that no tanh has to be computed the same way twice. Node names
are the layers' and tensors' own: latency table and search meet by them.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mpcompile.errors import ModelError
from mpcompile.files import atomic_path
from mpcompile.ir.grid import Grid
from mpcompile.search.layers import BitChoice, ConvLayer, DenseLayer, FlowNetwork, ForwardPass

QONNX = "qonnx.custom_op.general"
OPSET, QONNX_OPSET, IR_VERSION = 17, 1, 10
INPUT, OUTPUT = "image", "logits"


def export(network: FlowNetwork, path: str | os.PathLike) -> None:
    """Writes the file, whole or not at all: input `image` [1, C, H, W] in 0..1, output `logits` [1, classes].

    The network is exported at the bits that are set, with its BatchNorms' running statistics. Raises ModelError where a
    choice is being mixed.
    """
    model = to_onnx(network)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def to_onnx(network: FlowNetwork) -> onnx.ModelProto:
    """The same in memory."""
    writer = _Writer()
    network.flow(INPUT, writer)
    writer.nodes[-1].output[0] = OUTPUT
    ports = [
        helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, *network.input_shape]),
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, network.classes]),
    ]
    graph = helper.make_graph(writer.nodes, type(network).__name__, ports[:1], ports[1:], writer.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(QONNX, QONNX_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mpcompile")
    onnx.checker.check_model(model)
    return model


class _Writer(ForwardPass):
    """Carries operators out on tensor names: each appends its nodes."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def quantize(self, choice: BitChoice, x: str) -> str:
        self._settled(choice)
        if choice.bits is None:
            return self.relu(f"{choice.name}.relu", x)
        grid = choice.quantizer.grid(choice.bits)
        return self._int_quant(choice.name, x, grid, choice.quantizer.scale(choice.bits))

    def conv(self, layer: ConvLayer, x: str) -> str:
        _o, _, k, _ = layer.weight.shape
        weight = self._weight(layer.choice, layer.weight, 1.0)
        y = self._node(
            "Conv", layer.name, [x, weight], kernel_shape=[k, k], strides=[layer.stride] * 2, pads=[layer.padding] * 4
        )
        norm, name = layer.norm, f"{layer.name}.norm"
        parts = dict(scale=norm.weight, bias=norm.bias, mean=norm.running_mean, var=norm.running_var)
        stored = [self._constant(f"{name}.{k}", v) for k, v in parts.items()]
        return self._node("BatchNormalization", name, [y, *stored], epsilon=norm.eps)

    def dense(self, layer: DenseLayer, x: str) -> str:
        weight = self._weight(layer.choice, layer.weight, layer.gain.item())
        return self._node("Gemm", layer.name, [x, weight, self._constant(f"{layer.name}.bias", layer.bias)], transB=1)

    def relu(self, name: str, x: str) -> str:
        return self._node("Relu", name, [x])

    def add(self, name: str, x: str, y: str) -> str:
        return self._node("Add", name, [x, y])

    def mean(self, name: str, x: str) -> str:
        return self._node("Flatten", name, [self._node("GlobalAveragePool", f"{name}.pool", [x])], axis=1)

    # -- quantizers --------------------------------------------------------------------------------
    def _weight(self, choice: BitChoice, weight, gain: float) -> str:
        """The quantized weights, times a gain > 0 or < 0 that goes into scale and sign."""
        self._settled(choice)
        if choice.bits is None:
            return self._constant(f"{choice.name}.values", gain * choice.quantizer.real(weight))
        if gain == 0:
            raise ModelError(f"layer {choice.name} has a gain of 0: all its weights are 0")
        grid, scale = choice.quantizer.grid(choice.bits), np.float32(abs(gain) * choice.quantizer.scale(choice.bits))
        q = grid.value(choice.quantizer.codes(weight.detach(), choice.bits).cpu().numpy()) * (1 if gain > 0 else -1)
        stored = self._constant(f"{choice.name}.values", (q * np.float64(scale)).astype(np.float32))
        return self._int_quant(choice.name, stored, grid, float(scale))

    def _int_quant(self, name: str, x: str, grid: Grid, scale: float) -> str:
        """Quantizes x onto `grid`, real value scale·q: u = q/step + zero, 0 ≤ u < levels."""
        if grid.lo == -1 and grid.levels == 2 and grid.step == 2:
            return self._node("BipolarQuant", name, [x, self._constant(f"{name}.scale", scale)], domain=QONNX)
        if grid.levels != 1 << grid.bits:
            raise ModelError(f"{name}: a {grid} cannot be written as an unsigned QONNX quantizer")
        parts = dict(scale=scale * grid.step, zero=-grid.lo / grid.step, bits=grid.bits)
        stored = [self._constant(f"{name}.{k}", v) for k, v in parts.items()]
        return self._node("IntQuant", name, [x, *stored], domain=QONNX, signed=0, narrow=0, rounding_mode="ROUND")

    @staticmethod
    def _settled(choice: BitChoice) -> None:
        if choice.probs is not None:
            raise ModelError(f"{choice.name} is a mixture of bitwidths: set its bits before exporting")

    # -- ONNX --------------------------------------------------------------------------------------
    def _node(self, op: str, name: str, inputs: list[str], domain: str = "", **attributes) -> str:
        """Appends a node; its output bears its name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def _constant(self, name: str, value) -> str:
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name
