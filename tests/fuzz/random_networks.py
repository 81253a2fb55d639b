"""Random small networks as ONNX files in QDQ, QONNX and QOperator, over the operators that are supported."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from math import prod, sqrt

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.data.hand_made import QONNX, Builder
from tests.fuzz.operators import Operators

MICROSOFT = "com.microsoft"
FORMATS = ("qdq", "qonnx", "qoperator")
SHAPES = ((3, 9, 8), (2, 6, 7), (5, 8, 8), (4, 11), (9,))
ROUNDINGS = ("ROUND", "HALF_EVEN", "HALF_UP", "HALF_DOWN", "CEIL", "FLOOR", "UP", "DOWN")
INTEGERS = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
}
SELDOM = (TensorProto.INT16, TensorProto.UINT16, TensorProto.INT4, TensorProto.UINT4)
SEVEN_BITS = 63
"""Of int8 weights beside uint8 inputs: of larger ones ONNX Runtime's sums of 16 bits saturate on AVX2."""


class Network(Builder):
    """A file under construction: `shapes`, without batch axis, and `spread`, about the standard deviation, of each tensor.

    `free`: tensors of reals that may be read; late ones are likelier. `wide`: with the operators of operators.py, too.
    """

    def __init__(self, rng: random.Random, opset: int, domains: tuple[str, ...] = (), wide: bool = False):
        super().__init__("fuzz", opset, rng.choice(SHAPES), domains)
        self.random, self.wide = rng, wide
        self.rng = np.random.default_rng(rng.getrandbits(64))
        self.shapes = {"x": self.shape}
        self.spread = {"x": 1.0}
        self.free = ["x"]
        self.kinds: dict[str, int] = {}
        """Of outputs that are no reals."""

    def put(self, op: str, *inputs, shape=None, spread: float | None = None, domain: str = "", **attributes) -> str:
        """`add`, with what is known of the output; of the first input where nothing is given."""
        name = self.add(op, *inputs, domain=domain, **attributes)
        first = next(i for i in inputs if isinstance(i, str) and i in self.shapes)
        self.shapes[name] = self.shapes[first] if shape is None else tuple(map(int, shape))
        self.spread[name] = self.spread[first] if spread is None else spread
        return name

    def pick(self, fits=lambda t: True) -> str | None:
        found = [t for t in self.free if fits(t)]
        return found[-1 - min(int(self.random.expovariate(0.7)), len(found) - 1)] if found else None

    def free_up(self, tensor: str) -> str:
        self.free.append(tensor)
        return tensor

    def scale(self, spread: float, levels: int) -> np.float32:
        """Of a grid of so many levels over about ±2.5·spread; a power of two now and then, so that there are ties."""
        scale = 5 * max(spread, 1e-3) / max(levels - 1, 1)
        return np.float32(2.0 ** round(np.log2(scale)) if self.random.random() < 0.3 else scale)

    def geometry(self, size, pool: bool = False) -> tuple[dict, list[int]]:
        """(attributes, the output's size) of a convolution or pool that fits."""
        r, kernel, strides, pads, dilations, after = self.random, [], [], [], [], []
        for n in size:
            k, s, d = r.randint(1, min(n, 3)), r.randint(1, 2), 1 if pool else r.randint(1, 2)
            before, behind = (
                (r.randint(0, (k - 1) // 2), r.randint(0, (k - 1) // 2))
                if pool
                else (r.randint(0, k - 1), r.randint(0, k - 1))
            )
            if n + before + behind < (k - 1) * d + 1:
                k, d, before, behind = 1, 1, 0, 0
            kernel.append(k), strides.append(s), dilations.append(d), pads.append((before, behind))
            after.append((n + before + behind - (k - 1) * d - 1) // s + 1)
        found = dict(kernel_shape=kernel, strides=strides, pads=[b for b, _ in pads] + [b for _, b in pads])
        return found if pool else found | {"dilations": dilations}, after

    def channels(self, channels: int) -> tuple[int, int]:
        """(groups, filters): plain, depthwise, grouped."""
        groups = self.random.choice((1, 1, 1, channels, 2 if channels % 2 == 0 else 1))
        filters = groups * self.random.randint(1, 3) if groups > 1 else self.random.randint(1, 18)
        return groups, filters

    def flatten(self, tensor: str, size: int) -> str:
        return self.put("Flatten", tensor, shape=(size,))

    def reshape(self, tensor: str, size: int) -> str:
        return self.put("Reshape", tensor, self.constant([1, -1], np.int64), shape=(size,))

    def move(self) -> None:
        tensor = self.pick(lambda t: len(self.shapes[t]) == 3)
        if tensor is None:
            return
        c, h, w = self.shapes[tensor]
        what = self.random.choice(("transpose", "reshape", "pad", "identity", "mean"))
        if what == "transpose":
            perm = self.random.sample((1, 2, 3), 3)
            made = self.put("Transpose", tensor, shape=[(c, h, w)[p - 1] for p in perm], perm=[0, *perm])
        elif what == "reshape":
            made = self.put("Reshape", tensor, self.constant([0, c, -1], np.int64), shape=(c, h * w))
        elif what == "pad":
            pads = [0, 0, self.random.randint(0, 2), 1, 0, 0, 1, 0]
            made = self.put("Pad", tensor, self.constant(pads, np.int64), shape=(c, h + pads[2] + 1, w + 1))
        elif what == "mean" and self.opset >= 18:
            made = self.put("ReduceMean", tensor, self.constant([2, 3], np.int64), shape=(c, 1, 1), keepdims=1)
        else:
            made = self.put("Identity", tensor)
        self.free_up(made)

    def finished(self) -> onnx.ModelProto:
        read = {i for n in self.nodes for i in n.input}
        leaves = [t for t in self.shapes if t not in read and t != "x"]
        kind = lambda name: self.kinds.get(name, TensorProto.FLOAT)
        value = lambda name: helper.make_tensor_value_info(name, kind(name), (1, *self.shapes[name]))
        graph = helper.make_graph(self.nodes, self.name, [value("x")], [value(t) for t in leaves], self.constants)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in self.domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        if self.random.random() < 0.3:
            for v in (*model.graph.input, *model.graph.output):
                v.type.tensor_type.shape.dim[0].dim_param = "N"
        return model


class RealNetwork(Operators, Network, ABC):
    """Of real-valued operators between quantizers, which each format writes in its way."""

    @abstractmethod
    def quantized(self, tensor: str) -> str: ...

    @abstractmethod
    def weights(self, shape: tuple[int, ...], axis: int = 0) -> str: ...

    def bias(self, count: int, spread: float) -> list[str]:
        """None, or one of float."""
        return [self.constant(self.rng.normal(0, spread, count))] if self.random.random() < 0.6 else []

    # -- operators -----------------------------------------------------------------------------------------
    def step(self) -> None:
        steps = (
            [self.contract] * 5
            + [self.unary] * 4
            + [self.pool] * 2
            + [self.add_two, self.concat, self.move, self.residual]
        )
        if self.wide:
            steps += [self.function] * 3 + [self.two, self.excite, self.pieces, self.pieces, self.resize, self.blocks]
            steps += [self.padded, self.axes, self.reduced, self.softmax, self.normalized, self.rows, self.transposed]
            steps += [self.chosen, self.index]
        self.random.choice(steps)()

    def contract(self) -> None:
        tensor = self.pick()
        self.free_up(
            self.conv(tensor) if len(self.shapes[tensor]) > 1 and self.random.random() < 0.8 else self.dense(tensor)
        )

    def conv(self, tensor: str) -> str:
        read = self.quantized(tensor)
        channels, *size = self.shapes[read]
        groups, filters = self.channels(channels)
        attributes, after = self.geometry(size)
        weight = self.weights((filters, channels // groups, *attributes["kernel_shape"]))
        fan = channels // groups * prod(attributes["kernel_shape"])
        spread = self.spread[read] * sqrt(fan) * 0.3
        bias = self.bias(filters, spread)
        made = self.put("Conv", read, weight, *bias, shape=(filters, *after), spread=spread, group=groups, **attributes)
        if self.random.random() < 0.4:
            made = self.put("BatchNormalization", made, *self.statistics(filters, spread), spread=1.0)
        return made

    def statistics(self, channels: int, spread: float):
        r = self.rng
        signs = np.where(r.random(channels) < 0.25, -1, 1)
        return (
            r.uniform(0.5, 1.5, channels) * signs,
            0.4 * r.standard_normal(channels),
            0.2 * spread * r.standard_normal(channels),
            spread**2 * r.uniform(0.5, 1.5, channels),
        )

    def dense(self, tensor: str) -> str:
        size = prod(self.shapes[tensor])
        flat = tensor
        if len(self.shapes[tensor]) > 1:
            flat = self.random.choice((self.flatten, self.reshape))(tensor, size)
        read = self.quantized(flat)
        out, spread = self.random.randint(1, 12), self.spread[read] * sqrt(size) * 0.3
        if self.random.random() < 0.5:
            weight = self.weights((out, size))
            return self.put("Gemm", read, weight, *self.bias(out, spread), shape=(out,), spread=spread, transB=1)
        made = self.put("MatMul", read, self.weights((size, out), 1), shape=(out,), spread=spread)
        return self.put("Add", made, self.rng.normal(0, spread, out)) if self.random.random() < 0.5 else made

    def unary(self) -> None:
        tensor = self.pick()
        shape, spread, r = self.shapes[tensor], self.spread[tensor], self.random
        along = lambda low, high: self.rng.uniform(
            low, high, (shape[0], *[1] * (len(shape) - 1)) if r.random() < 0.6 else ()
        )
        what = r.choice(("relu", "clip", "leaky", "prelu", "mul", "add", "float", "quantize", "div", "sub"))
        if what == "relu":
            made = self.put("Relu", tensor)
        elif what == "clip":
            made = self.put("Clip", tensor, np.float32(r.choice((0, -spread))), np.float32(2 * spread))
        elif what == "leaky":
            made = self.put("LeakyRelu", tensor, alpha=r.choice((0.01, 0.1, 0.25)))
        elif what == "prelu":
            made = self.put("PRelu", tensor, along(-0.1, 0.4))
        elif what == "mul":
            made = self.put("Mul", tensor, along(-1.5, 1.5))
        elif what == "div":
            made = self.put("Div", tensor, along(0.5, 2))
        elif what == "add":
            made = self.put("Add", tensor, along(-spread, spread))
        elif what == "sub":
            made = self.put("Sub", tensor, along(-spread, spread))
        elif what == "float":
            made = self.put(r.choice(("Sigmoid", "Tanh", "HardSigmoid", "Abs")), tensor, spread=0.5)
        else:
            made = self.quantized(tensor)
        self.free_up(made)

    def pool(self) -> None:
        tensor = self.pick(lambda t: len(self.shapes[t]) > 1)
        if tensor is None:
            return
        if self.random.random() < 0.5:
            tensor = self.quantized(tensor)
        channels, *size = self.shapes[tensor]
        if self.random.random() < 0.25:
            op = self.random.choice(("GlobalAveragePool", "GlobalMaxPool"))
            self.free_up(self.put(op, tensor, shape=(channels, *[1] * len(size))))
            return
        attributes, after = self.geometry(size, pool=True)
        op = self.random.choice(("MaxPool", "AveragePool"))
        if op == "AveragePool":
            attributes["count_include_pad"] = self.random.choice((0, 1))
        self.free_up(self.put(op, tensor, shape=(channels, *after), **attributes))

    def pair(self, fits) -> tuple[str, str] | None:
        a = self.pick()
        b = self.pick(lambda t: fits(self.shapes[t], self.shapes[a]))
        if b is None:
            return None
        if self.random.random() < 0.5:
            return self.quantized(a), self.quantized(b)
        return a, b

    def add_two(self) -> None:
        a, b = self.pair(lambda s, t: s == t) or ("x", "x")
        self.free_up(self.put("Add", a, b, spread=1.4 * max(self.spread[a], self.spread[b])))

    def concat(self) -> None:
        a, b = self.pair(lambda s, t: s[1:] == t[1:]) or ("x", "x")
        shape = (self.shapes[a][0] + self.shapes[b][0], *self.shapes[a][1:])
        self.free_up(self.put("Concat", a, b, shape=shape, spread=max(self.spread[a], self.spread[b]), axis=1))

    def residual(self) -> None:
        tensor = self.pick(lambda t: len(self.shapes[t]) == 3)
        if tensor is None:
            return
        skip = self.quantized(tensor)
        channels = self.shapes[skip][0]
        y = skip
        for last in (False, True):
            weight = self.weights((channels, channels, 3, 3))
            spread = self.spread[y] * sqrt(9 * channels) * 0.3
            y = self.put("Conv", y, weight, spread=spread, pads=[1, 1, 1, 1])
            y = self.put("BatchNormalization", y, *self.statistics(channels, spread), spread=1.0)
            y = self.quantized(y if last else self.put("Relu", y))
        self.free_up(self.put("Relu", self.put("Add", y, skip)))


class Qdq(RealNetwork):
    def __init__(self, rng: random.Random, wide: bool = False):
        super().__init__(rng, rng.choice((13, 17, 19, 21, 22, 23) if wide else (13, 17, 19, 21, 22)), (), wide)

    def kind(self) -> int:
        small = self.opset >= 21 and self.random.random() < 0.4
        return self.random.choice(
            (TensorProto.INT4, TensorProto.UINT4) if small else (TensorProto.INT8, TensorProto.UINT8)
        )

    def quantized(self, tensor: str) -> str:
        if tensor.startswith("Dequantize") and self.random.random() < 0.8:
            return tensor
        kind = self.kind()
        low, high = INTEGERS[kind]
        zero = 0 if low < 0 and self.random.random() < 0.5 else self.random.randint(low, high)
        domain = ""
        if self.wide and self.random.random() < 0.15:  # what ONNX Runtime's quantizer writes for 16 and 4 bits
            domain = MICROSOFT if self.opset < 21 or self.random.random() < 0.5 else ""
            kind = self.random.choice(SELDOM)
            low, high = INTEGERS[kind]
            zero = self.random.choice((0, (low + high + 1) // 2))
            self.domains = (MICROSOFT,) if domain else self.domains
        s, z = self.constant(self.scale(self.spread[tensor], high - low + 1)), self.constant(zero, np.int64, kind)
        codes = self.put("QuantizeLinear", tensor, s, z, domain=domain)
        return self.put("DequantizeLinear", codes, s, z, domain=domain)

    def weights(self, shape: tuple[int, ...], axis: int = 0) -> str:
        kind = self.kind()
        low, high = INTEGERS[kind]
        channel = self.random.random() < 0.5
        count = shape[axis] if channel else ()
        one = 0 if self.random.random() < 0.7 else self.random.randint(low, high)
        zero = np.full(count, one)  # zero points that differ between channels would make grids of 9 bits
        scale = self.rng.uniform(0.5, 1.5, count) * 0.6 / (high - low)
        codes = self.constant(self.rng.integers(low, high + 1, shape), np.int64, kind)
        named = dict(axis=axis) if channel else {}
        return self.add("DequantizeLinear", codes, self.constant(scale), self.constant(zero, np.int64, kind), **named)

    def bias(self, count: int, spread: float) -> list[str]:
        if self.random.random() < 0.5:
            return super().bias(count, spread)
        codes = self.constant(self.rng.integers(-1000, 1000, count), np.int32)
        return [self.add("DequantizeLinear", codes, self.constant(np.float32(spread / 1000)))]


class Qonnx(RealNetwork):
    def __init__(self, rng: random.Random, wide: bool = False):
        super().__init__(rng, rng.choice((11, 13, 17)), (QONNX,), wide)

    def quantized(self, tensor: str) -> str:
        r, bits = self.random, self.random.randint(1, 8)
        if tensor.startswith(("IntQuant", "Bipolar")) and r.random() < 0.8:
            return tensor
        if r.random() < 0.12:
            return self.put("BipolarQuant", tensor, self.scale(self.spread[tensor], 4), domain=QONNX)
        signed = r.random() < 0.5
        bits = max(bits, 2) if signed else bits
        scale = self.scale(self.spread[tensor], 1 << bits)
        zero = 0.0 if signed or r.random() < 0.6 else float(r.randint(0, (1 << bits) - 1))
        if r.random() < 0.1 and not signed:
            zero += 0.5
        narrow = int(r.random() < 0.2)
        mode = r.choice(ROUNDINGS) if r.random() < 0.4 else "ROUND"
        op = r.choice(("IntQuant", "Quant"))
        options = dict(signed=int(signed), narrow=narrow, rounding_mode=mode, domain=QONNX)
        return self.put(op, tensor, scale, np.float32(zero), np.float32(bits), **options)

    def weights(self, shape: tuple[int, ...], axis: int = 0) -> str:
        r, along = self.random, [1] * len(shape)
        if r.random() < 0.5:
            along[axis] = shape[axis]
        scale = lambda levels: self.rng.uniform(0.5, 1.5, along) * 0.6 / levels
        data = self.rng.normal(0, 0.3, shape)
        if r.random() < 0.15:
            return self.add("BipolarQuant", data, scale(1), domain=QONNX)
        bits = r.randint(2, 8)
        options = dict(signed=1, narrow=int(r.random() < 0.5), rounding_mode="ROUND", domain=QONNX)
        return self.add("IntQuant", data, scale(1 << bits - 1), np.float32(0), np.float32(bits), **options)


class QOperator(Operators, Network):
    """Operators on codes between a QuantizeLinear of x and a DequantizeLinear of each output. `codes`: their scale and
    zero point, as initializers, and spread."""

    def __init__(self, rng: random.Random, wide: bool = False):
        super().__init__(rng, rng.choice((13, 17, 21)), (MICROSOFT,), wide)
        self.kind = rng.choice((TensorProto.UINT8, TensorProto.INT8))
        self.codes: dict[str, tuple[str, str]] = {}
        s, z = self.grid(1.0)
        first = self.put("QuantizeLinear", "x", s, z)
        self.codes[first], self.free = (s, z), [first]

    def grid(self, spread: float) -> tuple[str, str]:
        low, high = INTEGERS[self.kind]
        zero = self.random.choice((0, 128 if low == 0 else 0, self.random.randint(low, high)))
        return self.constant(self.scale(spread, 256)), self.constant(zero, np.int64, self.kind)

    def on(self, tensor: str) -> list[str]:
        return [tensor, *self.codes[tensor]]

    def step(self) -> None:
        self.random.choice(
            [self.qconv] * 4
            + [self.qdense, self.qadd, self.qconcat, self.qpool, self.qpool, self.qunary, self.qmove]
            + [self.qpicked, self.qpicked] * self.wide
        )()

    def quantized(self, tensor: str) -> str:
        """It is; what `qpicked` is to know of what it reads."""
        if tensor in self.codes:
            self.last = tensor
        return tensor

    def maybe_quantized(self, tensor: str) -> str:
        return self.quantized(tensor)

    def qpicked(self) -> None:
        """Operators that move codes about."""
        before = set(self.shapes)
        self.random.choice((self.pieces, self.pieces, self.blocks, self.axes))()
        self.codes.update((made, self.codes[self.last]) for made in set(self.shapes) - before)

    def made(self, name: str, grid: tuple[str, str]) -> None:
        self.codes[self.free_up(name)] = grid

    def weight(self, shape, axis: int) -> list[str]:
        count = shape[axis] if self.random.random() < 0.5 else ()
        scale = self.constant(self.rng.uniform(0.5, 1.5, count) * 0.6 / 127)
        return [
            self.constant(self.rng.integers(-SEVEN_BITS, SEVEN_BITS + 1, shape), np.int8),
            scale,
            self.constant(np.zeros(count), np.int8),
        ]

    def qconv(self) -> None:
        tensor = self.pick(lambda t: len(self.shapes[t]) == 3)
        if tensor is None:
            return self.qdense()
        channels, *size = self.shapes[tensor]
        groups, filters = self.channels(channels)
        attributes, after = self.geometry(size)
        weight = self.weight((filters, channels // groups, *attributes["kernel_shape"]), 0)
        spread = self.spread[tensor] * sqrt(channels // groups * prod(attributes["kernel_shape"])) * 0.2
        grid = self.grid(spread)
        bias = [self.constant(self.rng.integers(-3000, 3000, filters), np.int32)] if self.random.random() < 0.6 else []
        inputs = [*self.on(tensor), *weight, *grid, *bias]
        self.made(
            self.put("QLinearConv", *inputs, shape=(filters, *after), spread=spread, group=groups, **attributes), grid
        )

    def qdense(self) -> None:
        tensor = self.pick()
        size = prod(self.shapes[tensor])
        flat = self.put("Flatten", tensor, shape=(size,)) if len(self.shapes[tensor]) > 1 else tensor
        self.codes[flat] = self.codes[tensor]
        out, spread = self.random.randint(1, 10), self.spread[flat] * sqrt(size) * 0.2
        grid = self.grid(spread)
        if self.random.random() < 0.5:
            inputs = [*self.on(flat), *self.weight((size, out), 1), *grid]
            self.made(self.put("QLinearMatMul", *inputs, shape=(out,), spread=spread), grid)
        else:
            bias = self.constant(self.rng.integers(-3000, 3000, out), np.int32)
            inputs = [*self.on(flat), *self.weight((out, size), 0), bias, *grid]
            self.made(self.put("QGemm", *inputs, shape=(out,), spread=spread, domain=MICROSOFT, transB=1), grid)

    def qadd(self) -> None:
        a = self.pick()
        b = self.pick(lambda t: self.shapes[t] == self.shapes[a])
        op = self.random.choice(("QLinearAdd", "QLinearAdd", "QLinearMul")) if a != b else "QLinearAdd"
        spread = 1.4 * max(self.spread[a], self.spread[b]) if op == "QLinearAdd" else self.spread[a] * self.spread[b]
        grid = self.grid(spread)
        self.made(self.put(op, *self.on(a), *self.on(b), *grid, spread=spread, domain=MICROSOFT), grid)

    def qconcat(self) -> None:
        a = self.pick()
        b = self.pick(lambda t: self.shapes[t][1:] == self.shapes[a][1:])
        grid = self.grid(max(self.spread[a], self.spread[b]))
        shape = (self.shapes[a][0] + self.shapes[b][0], *self.shapes[a][1:])
        self.made(
            self.put("QLinearConcat", *grid, *self.on(a), *self.on(b), shape=shape, domain=MICROSOFT, axis=1), grid
        )

    def qpool(self) -> None:
        tensor = self.pick(lambda t: len(self.shapes[t]) == 3)
        if tensor is None:
            return
        channels, *size = self.shapes[tensor]
        what = self.random.choice(("max", "average", "global"))
        attributes, after = self.geometry(size, pool=True)
        if what == "max":
            self.made(self.put("MaxPool", tensor, shape=(channels, *after), **attributes), self.codes[tensor])
            return
        grid = self.grid(self.spread[tensor])
        inputs, op = [*self.on(tensor), *grid], "QLinearAveragePool"
        if what == "global":
            op, attributes, after = "QLinearGlobalAveragePool", {}, [1, 1]
        self.made(self.put(op, *inputs, shape=(channels, *after), domain=MICROSOFT, **attributes), grid)

    def qunary(self) -> None:
        tensor, grid = self.pick(), self.grid(0.5)
        choices = [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.1})]
        if self.kind == TensorProto.UINT8:  # of int8 ONNX Runtime's wraps around where it leaves the range
            choices.append(("QLinearSoftmax", {"axis": len(self.shapes[tensor]), "opset": self.opset}))
        op, attributes = self.random.choice(choices)
        self.made(self.put(op, *self.on(tensor), *grid, domain=MICROSOFT, spread=0.5, **attributes), grid)

    def qmove(self) -> None:
        tensor = self.pick(lambda t: len(self.shapes[t]) == 3)
        if tensor is None:
            return
        perm = self.random.sample((1, 2, 3), 3)
        shape = [self.shapes[tensor][p - 1] for p in perm]
        self.made(self.put("Transpose", tensor, shape=shape, perm=[0, *perm]), self.codes[tensor])

    def finished(self) -> onnx.ModelProto:
        read = {i for n in self.nodes for i in n.input}
        for tensor in [t for t in self.codes if t not in read]:
            self.put("DequantizeLinear", *self.on(tensor))
        return super().finished()


NETWORKS = {"qdq": Qdq, "qonnx": Qonnx, "qoperator": QOperator}


def random_network(
    rng: random.Random, operators: int = 7, form: str | None = None, wide: bool = False
) -> onnx.ModelProto:
    """A network of about so many operators, in a format (FORMATS); `wide`: of all of operators.py, too."""
    network = NETWORKS[form or rng.choice(FORMATS)](rng, wide)
    if isinstance(network, QOperator):
        network.qconv()
    else:
        network.contract()
    for _ in range(rng.randint(1, operators)):
        network.step()
    return network.finished()
