"""Networks to measure: random weights, deterministic, as QONNX at given bits and as float ONNX of the same topology.

Everything is drawn from one seed and calibrated by one forward pass in numpy, layer by layer while the network is being
built: BatchNorm gets the statistics that its input really has, and each activation quantizer the scale with the least
squared error. So no activation saturates or dies, at any bitwidth.

    resnet18(bits)           torchvision's topology; first and last layer at 8 bits, residual adds in float
    conv_layer(shape, bits)  quantized input → convolution, BatchNorm, ReLU, quantizer → a small 1×1 convolution that
                             keeps the layer's output quantized and packed: the node `conv` is what one measures

Weights: bipolar at 1 bit, two's complement from 2 bits up, a scale per channel. Activations: unsigned after ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"
OPSET = 17
IR_VERSION = 10


@dataclass(frozen=True)
class Bits:
    """Weight and activation bits of the layers between the first and the last."""

    w: int
    a: int

    def __str__(self) -> str:
        return f"W{self.w}A{self.a}"


@dataclass(frozen=True)
class ConvShape:
    """A square k×k convolution, padding k//2: c channels of h×h in, o channels out."""

    c: int
    h: int
    o: int
    stride: int = 1
    k: int = 3

    @property
    def out(self) -> int:
        return (self.h + 2 * (self.k // 2) - self.k) // self.stride + 1

    @property
    def macs(self) -> int:
        return self.out ** 2 * self.o * self.c * self.k ** 2

    def __str__(self) -> str:
        return f"{self.c}x{self.h}x{self.h}->{self.o} {self.k}x{self.k}" + (
            f" /{self.stride}" if self.stride > 1 else ""
        )


RESNET18_LAYERS = (
    ConvShape(64, 56, 64),
    ConvShape(64, 56, 128, 2),
    ConvShape(128, 28, 128),
    ConvShape(128, 28, 256, 2),
    ConvShape(256, 14, 256),
    ConvShape(256, 14, 512, 2),
    ConvShape(512, 7, 512),
)
"""The 3×3 layers of ResNet-18."""


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """x [C, H, W], weight [O, C, K, K] → [O, HO, WO], float32."""
    o, c, k, _ = weight.shape
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    ho, wo = ((n + 2 * pad - k) // stride + 1 for n in x.shape[1:])
    total = np.zeros((o, ho * wo), np.float32)
    for i in range(k):
        for j in range(k):
            window = padded[:, i:i + stride * ho:stride, j:j + stride * wo:stride][:, :ho, :wo]
            total += np.ascontiguousarray(weight[:, :, i, j]) @ window.reshape(c, -1)
    return total.reshape(o, ho, wo)


@cache
def gaussian_step(bits: int) -> float:
    """The two's-complement step with the least squared error on N(0, 1) weights, found by search."""
    x = np.random.default_rng(0).normal(size=20000)
    steps = np.linspace(0.01, 2.0, 400)
    lo, hi = -(1 << bits - 1), (1 << bits - 1) - 1
    errors = [np.square(np.clip(np.round(x / s), lo, hi) * s - x).mean() for s in steps]
    return float(steps[int(np.argmin(errors))])


def best_scale(x: np.ndarray, bits: int, signed: bool) -> float:
    """The per-tensor scale with the least squared error on `x`, among 40 fractions of its largest magnitude."""
    lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    sample = x.reshape(-1)[:: max(1, x.size // 8192)]
    scales = np.abs(sample).max() / hi * np.linspace(0.1, 1.2, 40)
    errors = [np.square(np.clip(np.round(sample / s), lo, hi) * s - sample).mean() for s in scales]
    return float(np.float32(scales[int(np.argmin(errors))]))


@dataclass(frozen=True)
class Network:
    """A model with one input and one output, the input it was calibrated with, and what numpy computed for it.

    Arrays are float32 without the batch axis.
    """

    model: onnx.ModelProto
    x: np.ndarray
    y: np.ndarray

    @property
    def feed(self) -> dict[str, np.ndarray]:
        """The calibration input by name, with the batch axis."""
        return {self.model.graph.input[0].name: self.x[None]}

    def save(self, path) -> None:
        onnx.save(self.model, str(path))


@dataclass
class Builder:
    """Appends nodes to an ONNX graph and keeps, per tensor, its value for the calibration input (without batch axis).

    With `quantized` off, quantizers are left out and weights stay float: the same topology in float32.
    """

    seed: int
    quantized: bool = True
    nodes: list = field(default_factory=list)
    constants: list = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def constant(self, name: str, value) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, value: np.ndarray, **attributes) -> str:
        """Appends a node whose one output bears the node's name and has `value` on the calibration input."""
        domain = QONNX if op in ("IntQuant", "BipolarQuant") else ""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes))
        self.values[name] = value
        return name

    def int_quant(self, x: str, scale, bits: int, signed: bool, name: str, value: np.ndarray) -> str:
        lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        scale = np.asarray(scale, np.float32)
        quantized = (np.clip(np.round(value / scale), lo, hi) * scale).astype(np.float32)
        inputs = [x, self.constant(f"{name}_scale", scale), self.constant(f"{name}_zero", 0.0),
                  self.constant(f"{name}_bits", bits)]
        return self.node("IntQuant", inputs, name, quantized, signed=int(signed), narrow=0, rounding_mode="ROUND")

    def activation(self, x: str, bits: int, name: str, signed: bool = False) -> str:
        """A quantizer with the best scale for what arrives; x itself in float."""
        if not self.quantized:
            return x
        value = self.values[x]
        return self.int_quant(x, best_scale(value, bits, signed), bits, signed, name, value)

    def weight(self, shape: tuple[int, ...], bits: int, name: str) -> str:
        """N(0, 1/fan_in) weights [O, …] through a per-channel quantizer; the scale differs per channel."""
        fan_in = int(np.prod(shape[1:]))
        sigma = (self.rng.uniform(0.5, 1.5, shape[0]) / np.sqrt(fan_in)).reshape(-1, *[1] * (len(shape) - 1))
        raw = (self.rng.normal(size=shape) * sigma).astype(np.float32)
        source = self.constant(f"{name}_float" if self.quantized else name, raw)
        if not self.quantized:
            self.values[name] = raw
            return name
        if bits > 1:
            return self.int_quant(source, sigma * gaussian_step(bits), bits, True, name, raw)
        scale = np.abs(raw).reshape(shape[0], -1).mean(1).reshape(sigma.shape).astype(np.float32)
        value = np.where(raw >= 0, scale, -scale).astype(np.float32)
        return self.node("BipolarQuant", [source, self.constant(f"{name}_scale", scale)], name, value)

    def conv(self, x: str, out: int, k: int, stride: int, bits: int, name: str) -> str:
        weight = self.weight((out, self.values[x].shape[0], k, k), bits, f"{name}_weight")
        value = convolve(self.values[x], self.values[weight], stride, k // 2)
        return self.node("Conv", [x, weight], name, value, kernel_shape=[k, k], strides=[stride] * 2,
                         pads=[k // 2] * 4, dilations=[1, 1], group=1)

    def batch_norm(self, x: str, name: str) -> str:
        value = self.values[x]
        c = value.shape[0]
        gamma, beta = self.rng.uniform(0.7, 1.3, c), self.rng.normal(0, 0.2, c)
        mean, variance = value.mean((1, 2)), value.var((1, 2)) + 0.05 * value.var()
        parameters = [self.constant(f"{name}_{n}", v) for n, v in
                      (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance))]
        a = gamma / np.sqrt(variance + 1e-5)
        normal = (value * a[:, None, None] + (beta - mean * a)[:, None, None]).astype(np.float32)
        return self.node("BatchNormalization", [x, *parameters], name, normal, epsilon=1e-5)

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", [x], name, np.maximum(self.values[x], 0))

    def add(self, x: str, y: str, name: str) -> str:
        return self.node("Add", [x, y], name, self.values[x] + self.values[y])

    def max_pool(self, x: str, name: str) -> str:
        """3×3, stride 2, padding 1."""
        padded = np.pad(self.values[x], ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
        ho, wo = ((n - 1) // 2 + 1 for n in self.values[x].shape[1:])
        value = np.max([padded[:, i:i + 2 * ho:2, j:j + 2 * wo:2][:, :ho, :wo]
                        for i in range(3) for j in range(3)], axis=0)
        return self.node("MaxPool", [x], name, value, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def dense(self, x: str, out: int, bits: int, name: str) -> str:
        weight = self.weight((out, self.values[x].size), bits, f"{name}_weight")
        shift = self.rng.normal(0, 0.1, out).astype(np.float32)
        bias = self.constant(f"{name}_bias", shift)
        return self.node("Gemm", [x, weight, bias], name, self.values[weight] @ self.values[x] + shift, transB=1)

    def network(self, source: str, output: str) -> Network:
        def port(name, value):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *value.shape])
        graph = helper.make_graph(self.nodes, "benchmark", [port(source, self.values[source])],
                                  [port(output, self.values[output])], self.constants)
        opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(QONNX, 1)] * self.quantized
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mpcompile benchmarks"
        )
        if not self.quantized:
            onnx.checker.check_model(model)
        return Network(model, self.values[source], self.values[output])


def calibration_image(size: int, seed: int = 0) -> np.ndarray:
    """float32 [3, size, size], N(0, 1), smooth over 8 pixels as images are."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(3, -(-size // 8), -(-size // 8))).repeat(8, 1).repeat(8, 2)[:, :size, :size]
    return (0.8 * coarse + 0.6 * rng.normal(size=(3, size, size))).astype(np.float32)


def resnet18(bits: Bits | None, *, size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """ResNet-18 with torchvision's topology at `bits`, or in float32 where bits is None.

    The first convolution and the last dense layer are 8 bits wide. A block's input is float; its first convolution and
    its downsample convolution read it through one quantizer, and the add takes it as it is.
    """
    b = Builder(seed, bits is not None)
    w, a = (bits.w, bits.a) if bits else (0, 0)
    b.values["image"] = calibration_image(size, seed)
    x = b.activation("image", 8, "image_quant", signed=True)
    x = b.relu(b.batch_norm(b.conv(x, 64, 7, 2, 8, "stem"), "stem_bn"), "stem_relu")
    x = b.max_pool(x, "stem_pool")
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name, stride = f"layer{stage}_{block}", 2 if stage > 1 and block == 0 else 1
            quantized = b.activation(x, a, f"{name}_in_quant")
            y = b.relu(
                b.batch_norm(b.conv(quantized, channels, 3, stride, w, f"{name}_conv1"), f"{name}_bn1"), f"{name}_relu1"
            )
            y = b.activation(y, a, f"{name}_mid_quant")
            y = b.batch_norm(b.conv(y, channels, 3, 1, w, f"{name}_conv2"), f"{name}_bn2")
            skip = x
            if stride > 1:
                skip = b.batch_norm(b.conv(quantized, channels, 1, stride, w, f"{name}_down"), f"{name}_down_bn")
            x = b.relu(b.add(y, skip, f"{name}_add"), f"{name}_relu2")
    x = b.node("GlobalAveragePool", [x], "pool", b.values[x].mean((1, 2), keepdims=True))
    x = b.node("Flatten", [x], "flat", b.values[x].reshape(-1), axis=1)
    x = b.activation(x, 8, "flat_quant")
    return b.network("image", b.dense(x, classes, 8, "classes"))


def conv_layer(shape: ConvShape, bits: Bits | None, *, seed: int = 0, tail: int = 16) -> Network:
    """One layer, node `conv`: codes in, codes out. In float (bits None) it ends after the ReLU, without the tail."""
    b = Builder(seed, bits is not None)
    w, a = (bits.w, bits.a) if bits else (0, 0)
    b.values["x"] = np.maximum(np.random.default_rng(seed + 1).normal(size=(shape.c, shape.h, shape.h)), 0).astype(
        np.float32
    )
    x = b.activation("x", a, "x_quant")
    x = b.relu(b.batch_norm(b.conv(x, shape.o, shape.k, shape.stride, w, "conv"), "bn"), "relu")
    if bits is None:
        return b.network("x", x)
    x = b.activation(x, a, "y_quant")
    return b.network("x", b.conv(x, tail, 1, 1, w, "tail"))
