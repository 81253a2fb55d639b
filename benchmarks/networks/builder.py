"""Appends layers to an ONNX graph and computes, in numpy, what each gives for one calibration input.

BatchNorm gets the statistics that its input really has, and each activation quantizer the scale with the least squared
error, layer by layer while the network is being built. So no activation saturates or dies, at any bitwidth. Everything
is drawn from one seed.

Weights: bipolar at 1 bit, two's complement from 2 bits up, a scale per channel. Activations: unsigned after ReLU,
two's complement where no ReLU stands before the quantizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.networks.arithmetic import convolve, pool

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


@cache
def gaussian_step(bits: int) -> float:
    """The two's-complement step with the least squared error on N(0, 1) weights, found by search."""
    x = np.random.default_rng(0).normal(size=20000)
    steps = np.linspace(0.01, 2.0, 400)
    lo, hi = integers(bits, True)
    errors = [np.square(np.clip(np.round(x / s), lo, hi) * s - x).mean() for s in steps]
    return float(steps[int(np.argmin(errors))])


def integers(bits: int, signed: bool) -> tuple[int, int]:
    """(least, largest) of the grid."""
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def best_scale(x: np.ndarray, bits: int, signed: bool) -> float:
    """The per-tensor scale with the least squared error on `x`, among 40 fractions of its largest magnitude."""
    lo, hi = integers(bits, signed)
    sample = x.reshape(-1)[:: max(1, x.size // 8192)]
    scales = np.abs(sample).max() / hi * np.linspace(0.1, 1.2, 40)
    errors = [np.square(np.clip(np.round(sample / s), lo, hi) * s - sample).mean() for s in scales]
    return float(np.float32(scales[int(np.argmin(errors))]))


@dataclass(frozen=True)
class Network:
    """A model with one input and one output, the input it was calibrated with, and what numpy computed for it.

    Arrays are float32 without the batch axis. `codes`: activation quantizer → the share of each level of its grid.
    """

    model: onnx.ModelProto
    x: np.ndarray
    y: np.ndarray
    codes: dict[str, np.ndarray] = field(default_factory=dict)

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
    codes: dict[str, np.ndarray] = field(default_factory=dict)

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

    # -- quantizers ----------------------------------------------------------------------------------
    def int_quant(self, x: str, scale, bits: int, signed: bool, name: str, value: np.ndarray) -> str:
        lo, hi = integers(bits, signed)
        scale = np.asarray(scale, np.float32)
        quantized = (np.clip(np.round(value / scale), lo, hi) * scale).astype(np.float32)
        inputs = [
            x,
            self.constant(f"{name}_scale", scale),
            self.constant(f"{name}_zero", 0.0),
            self.constant(f"{name}_bits", bits),
        ]
        return self.node("IntQuant", inputs, name, quantized, signed=int(signed), narrow=0, rounding_mode="ROUND")

    def activation(self, x: str, bits: int, name: str, signed: bool = False) -> str:
        """A quantizer with the best scale for what arrives; x itself in float."""
        if not self.quantized:
            return x
        value = self.values[x]
        scale = best_scale(value, bits, signed)
        self.int_quant(x, scale, bits, signed, name, value)
        lo, hi = integers(bits, signed)
        levels = np.rint(self.values[name] / np.float32(scale)).astype(np.int64) - lo
        self.codes[name] = np.bincount(levels.ravel(), minlength=hi - lo + 1) / levels.size
        return name

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

    # -- layers --------------------------------------------------------------------------------------
    def conv(self, x: str, out: int, k: int, stride: int, bits: int, name: str, *, groups: int = 1) -> str:
        """k×k, padding k//2, no bias."""
        weight = self.weight((out, self.values[x].shape[0] // groups, k, k), bits, f"{name}_weight")
        value = convolve(self.values[x], self.values[weight], stride, k // 2, groups)
        return self.node(
            "Conv",
            [x, weight],
            name,
            value,
            kernel_shape=[k, k],
            strides=[stride] * 2,
            pads=[k // 2] * 4,
            dilations=[1, 1],
            group=groups,
        )

    def batch_norm(self, x: str, name: str) -> str:
        value = self.values[x]
        c = value.shape[0]
        gamma, beta = self.rng.uniform(0.7, 1.3, c), self.rng.normal(0, 0.2, c)
        mean, variance = value.mean((1, 2)), value.var((1, 2)) + 0.05 * value.var()
        parameters = [
            self.constant(f"{name}_{n}", v)
            for n, v in (("gamma", gamma), ("beta", beta), ("mean", mean), ("variance", variance))
        ]
        a = gamma / np.sqrt(variance + 1e-5)
        normal = (value * a[:, None, None] + (beta - mean * a)[:, None, None]).astype(np.float32)
        return self.node("BatchNormalization", [x, *parameters], name, normal, epsilon=1e-5)

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", [x], name, np.maximum(self.values[x], 0))

    def relu6(self, x: str, name: str) -> str:
        bounds = [self.constant(f"{name}_{n}", v) for n, v in (("lo", 0.0), ("hi", 6.0))]
        return self.node("Clip", [x, *bounds], name, np.clip(self.values[x], 0, 6))

    def add(self, x: str, y: str, name: str) -> str:
        return self.node("Add", [x, y], name, self.values[x] + self.values[y])

    def concat(self, parts: list[str], name: str) -> str:
        """Along the channels."""
        return self.node("Concat", parts, name, np.concatenate([self.values[p] for p in parts]), axis=1)

    def max_pool(
        self, x: str, name: str, k: int = 3, stride: int = 2, pads: tuple[int, int, int, int] = (1, 1, 1, 1)
    ) -> str:
        """k×k; pads as ONNX orders them: top, left, bottom, right."""
        return self.node(
            "MaxPool",
            [x],
            name,
            pool(self.values[x], k, stride, pads),
            kernel_shape=[k, k],
            strides=[stride] * 2,
            pads=list(pads),
        )

    def global_average(self, x: str, name: str) -> str:
        return self.node("GlobalAveragePool", [x], name, self.values[x].mean((1, 2), keepdims=True))

    def flatten(self, x: str, name: str) -> str:
        return self.node("Flatten", [x], name, self.values[x].reshape(-1), axis=1)

    def dense(self, x: str, out: int, bits: int, name: str) -> str:
        weight = self.weight((out, self.values[x].size), bits, f"{name}_weight")
        shift = self.rng.normal(0, 0.1, out).astype(np.float32)
        bias = self.constant(f"{name}_bias", shift)
        return self.node("Gemm", [x, weight, bias], name, self.values[weight] @ self.values[x] + shift, transB=1)

    # -- the model -----------------------------------------------------------------------------------
    def network(self, source: str, output: str) -> Network:
        def port(name, value):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, *value.shape])

        graph = helper.make_graph(
            self.nodes,
            "benchmark",
            [port(source, self.values[source])],
            [port(output, self.values[output])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(QONNX, 1)] * self.quantized
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mpcompile benchmarks"
        )
        if not self.quantized:
            onnx.checker.check_model(model)
        return Network(model, self.values[source], self.values[output], self.codes)


def calibration_image(size: int, seed: int = 0) -> np.ndarray:
    """float32 [3, size, size], N(0, 1), smooth over 8 pixels as images are."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(3, -(-size // 8), -(-size // 8))).repeat(8, 1).repeat(8, 2)[:, :size, :size]
    return (0.8 * coarse + 0.6 * rng.normal(size=(3, size, size))).astype(np.float32)
