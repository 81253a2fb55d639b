"""Rows on the layers of small networks against ONNX Runtime int8: depthwise, pointwise, first, dense, few channels.

Ours is node `conv` of a small network: codes in, codes out, halo, scale and bias, ReLU and requantizing included. ONNX
Runtime's is what its optimizer makes of such a layer: one QLinearConv of the same shape on channels-last codes, ReLU in
its clamp. Nothing at the ends is taken off, for there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.compiled import Bench
from benchmarks.networks import Bits, Builder, ConvShape, Network
from benchmarks.row import Row
from mpcompile.latency import onnxruntime
from mpcompile.latency.measure import measure

TARGET = 1.0
INT8 = (Bits(8, 8),)
LOW = (Bits(1, 1), Bits(1, 2), Bits(2, 2))
TAIL = 16


@dataclass(frozen=True)
class SmallLayer:
    """A convolution and the bits to measure it at; `depthwise`: one input channel for each output channel."""

    kind: str
    shape: ConvShape
    bits: tuple[Bits, ...] = INT8
    depthwise: bool = False

    @property
    def groups(self) -> int:
        return self.shape.c if self.depthwise else 1

    @property
    def macs(self) -> int:
        return self.shape.macs // self.groups


def _depthwise(*shapes: tuple[int, int, int]) -> list[SmallLayer]:
    return [SmallLayer("depthwise", ConvShape(c, h, c, stride), depthwise=True) for c, h, stride in shapes]


def _pointwise(*shapes: tuple[int, int, int]) -> list[SmallLayer]:
    return [SmallLayer("pointwise", ConvShape(c, h, o, k=1)) for c, h, o in shapes]


LAYERS = (
    # MobileNet-v1 at 224², and what MobileNet-v2 adds: channel counts that are no power of two
    *_depthwise(
        (32, 112, 1),
        (64, 112, 2),
        (128, 56, 1),
        (128, 56, 2),
        (256, 28, 1),
        (256, 28, 2),
        (512, 14, 1),
        (512, 14, 2),
        (1024, 7, 1),
        (96, 112, 2),
        (144, 56, 1),
        (192, 28, 1),
    ),
    *_pointwise(
        (32, 112, 64),
        (64, 56, 128),
        (128, 56, 128),
        (128, 28, 256),
        (256, 28, 256),
        (256, 14, 512),
        (512, 14, 512),
        (512, 7, 1024),
        (1024, 7, 1024),
        (16, 112, 96),
        (96, 56, 24),
        (24, 56, 144),
        (144, 28, 32),
        (192, 28, 32),
        (384, 14, 96),
        (96, 14, 576),
    ),
    SmallLayer("first", ConvShape(3, 224, 32, 2)),
    SmallLayer("first", ConvShape(3, 224, 64, 2, 7)),
    SmallLayer("first", ConvShape(3, 32, 16)),
    SmallLayer("dense", ConvShape(512, 1, 1000, k=1)),
    SmallLayer("dense", ConvShape(2048, 1, 1000, k=1)),
    # ResNet-20
    SmallLayer("few channels", ConvShape(16, 32, 16), LOW + INT8),
    SmallLayer("few channels", ConvShape(16, 32, 32, 2), LOW + INT8),
    SmallLayer("few channels", ConvShape(32, 16, 32), LOW + INT8),
    SmallLayer("few channels", ConvShape(32, 16, 64, 2), LOW + INT8),
    SmallLayer("few channels", ConvShape(64, 8, 64), LOW + INT8),
)


def network(layer: SmallLayer, bits: Bits, seed: int = 0) -> Network:
    """Quantized input → `conv`, BatchNorm, ReLU, quantizer → a 1×1 convolution that keeps its output quantized."""
    b = Builder(seed)
    c, h = layer.shape.c, layer.shape.h
    b.values["x"] = np.maximum(np.random.default_rng(seed + 1).normal(size=(c, h, h)), 0).astype(np.float32)
    x = b.activation("x", bits.a, "x_quant")
    x = b.conv(x, layer.shape.o, layer.shape.k, layer.shape.stride, bits.w, "conv", groups=layer.groups)
    x = b.activation(b.relu(b.batch_norm(x, "bn"), "relu"), bits.a, "y_quant")
    return b.network("x", b.conv(x, TAIL, 1, 1, bits.w, "tail"))


def qlinear_conv(layer: SmallLayer, seed: int = 0) -> onnx.ModelProto:
    """One channels-last QLinearConv: u8 codes in and out, s8 weights per channel, int32 bias."""
    s, rng, constants = layer.shape, np.random.default_rng(seed), []

    def constant(name: str, value) -> str:
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    fan_in = s.c // layer.groups * s.k**2
    step, zero = np.float32(0.02), np.uint8(0)
    inputs = [
        "x",
        constant("x_scale", step),
        constant("x_zero", zero),
        constant("w", rng.integers(-127, 128, (s.o, s.c // layer.groups, s.k, s.k)).astype(np.int8)),
        constant("w_scale", np.full(s.o, 0.6 / np.sqrt(fan_in) / 73, np.float32)),
        constant("w_zero", np.zeros(s.o, np.int8)),
        constant("y_scale", step),
        constant("y_zero", zero),
        constant("bias", rng.integers(-500, 500, s.o).astype(np.int32)),
    ]
    node = helper.make_node(
        "QLinearConv",
        inputs,
        ["y"],
        domain="com.microsoft",
        channels_last=1,
        group=layer.groups,
        kernel_shape=[s.k, s.k],
        strides=[s.stride] * 2,
        pads=[s.k // 2] * 4,
    )
    ports = [
        [helper.make_tensor_value_info(name, TensorProto.UINT8, shape)]
        for name, shape in (("x", [1, s.h, s.h, s.c]), ("y", [1, s.out, s.out, s.o]))
    ]
    graph = helper.make_graph([node], "layer", *ports, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def rows(bench: Bench, rounds: int, layers=LAYERS) -> list[Row]:
    """Times faster than ONNX Runtime int8, one thread each; at low bits too it is int8 that must be beaten."""
    found = []
    for layer in layers:
        ours = {}
        for bits in layer.bits:
            name = f"{layer.kind} {layer.shape} {bits}"
            bundle = bench.bundle(name, lambda layer=layer, bits=bits: network(layer, bits))
            (family,) = {p["family"] for row in bundle.layers if row["name"] == "conv" for p in row["parts"]}
            ours[bits] = bundle.layer_timers()["conv"], family
        theirs = onnxruntime.timer(onnxruntime.session(qlinear_conv(layer).SerializeToString(), 1))
        bench.say(f"measuring {layer.kind} {layer.shape}")
        result = measure({"ort": theirs, **{str(bits): timer for bits, (timer, _) in ours.items()}}, rounds=rounds)
        for bits, (_, family) in ours.items():
            seconds = result[str(bits)].seconds
            note = (
                f"{seconds * 1e6:.1f} µs against {result['ort'].seconds * 1e6:.1f}; "
                f"{layer.macs / seconds / 1e9:.0f} GMAC/s, {family}"
            )
            found.append(
                Row(
                    f"{layer.kind} layer vs ONNX Runtime int8",
                    f"{bits} {layer.shape}",
                    result.ratio("ort", str(bits)),
                    "×",
                    TARGET,
                    note,
                    {"measurement": result.to_json()},
                )
            )
    return sorted(found, key=lambda row: [x.kind for x in layers].index(row.group.split(" layer vs")[0]))
