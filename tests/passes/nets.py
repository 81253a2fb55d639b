"""Networks written by hand, small in channels and exact in structure."""

from __future__ import annotations

import numpy as np

from mpcompile.ir.graph import (
    Add,
    Affine,
    Clip,
    Concat,
    Conv,
    Dense,
    Graph,
    Node,
    Pooling,
    PRelu,
    Quantize,
    QuantizedWeight,
    Quantizer,
    Reshape,
    TensorType,
    Transpose,
)
from mpcompile.ir.grid import Grid, twos_complement, unsigned

PIXELS = Quantizer(unsigned(8), 1 / 64, zero_first=False)
A2 = Quantizer(unsigned(2), 0.5)
A4 = Quantizer(twos_complement(4), 0.25, umin=-8)


class Net:
    """Each method adds one node and returns its output tensor. Weights are random, the same for each net."""

    def __init__(self, *shape: int):
        self.graph = Graph([], {"x": TensorType(shape)}, ["x"])
        self.rng = np.random.default_rng(0)

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.graph.types[tensor].shape

    def put(
        self, node_class, inputs: list[str], of_shape, of: Quantizer | None = None, called: str = "", **options
    ) -> str:
        name = called or f"{node_class.__name__.lower()}{len(self.graph.nodes)}"
        node: Node = node_class(name, inputs, [name], **options)
        self.graph.nodes.append(node)
        self.graph.types[name] = TensorType(tuple(of_shape), of)
        return name

    def quant(self, x: str, q: Quantizer = A2, called: str = "") -> str:
        return self.put(Quantize, [x], self.shape(x), q, called, quantizer=q)

    def conv(
        self,
        x: str,
        out: int,
        k: int = 3,
        stride: int = 1,
        groups: int = 1,
        grid: Grid = twos_complement(2),
        bias: bool = False,
        called: str = "",
        scale=None,
    ) -> str:
        channels, *size = self.shape(x)
        pad = k // 2
        q = self.rng.choice(grid.values, (out, channels // groups, *[k] * len(size)))
        weight = QuantizedWeight(q, grid, self.rng.uniform(0.02, 0.05, out) if scale is None else scale)
        after = [(n + 2 * pad - k) // stride + 1 for n in size]
        return self.put(
            Conv,
            [x],
            (out, *after),
            None,
            called,
            weight=weight,
            groups=groups,
            bias=self.rng.normal(0, 1, out) if bias else None,
            strides=(stride,) * len(size),
            pads=((pad, pad),) * len(size),
            dilations=(1,) * len(size),
        )

    def dense(self, x: str, out: int, called: str = "", grid: Grid = twos_complement(4)) -> str:
        q = self.rng.choice(grid.values, (out, self.shape(x)[0]))
        return self.put(
            Dense,
            [x],
            (out,),
            None,
            called,
            weight=QuantizedWeight(q, grid, np.array([0.03])),
            bias=self.rng.normal(0, 1, out),
        )

    def bn(self, x: str, negative: bool = False) -> str:
        c = self.shape(x)[0]
        a = self.rng.normal(0, 1, c) if negative else self.rng.uniform(0.5, 2, c)
        return self.put(Affine, [x], self.shape(x), a=a, b=self.rng.normal(0, 0.5, c))

    def affine(self, x: str, a, b) -> str:
        return self.put(Affine, [x], self.shape(x), a=np.array(a, float, ndmin=1), b=np.array(b, float, ndmin=1))

    def clip(self, x: str, lo: float = 0.0, hi: float = np.inf) -> str:
        return self.put(Clip, [x], self.shape(x), lo=lo, hi=hi)

    def prelu(self, x: str, slope) -> str:
        return self.put(PRelu, [x], self.shape(x), slope=np.atleast_1d(np.asarray(slope, float)))

    def add(self, x: str, y: str) -> str:
        return self.put(Add, [x, y], self.shape(x))

    def concat(self, *xs: str, called: str = "") -> str:
        quantizers = {self.graph.types[x].quantizer for x in xs}
        return self.put(
            Concat,
            list(xs),
            (sum(self.shape(x)[0] for x in xs), *self.shape(xs[0])[1:]),
            quantizers.pop() if len(quantizers) == 1 else None,
            called,
        )

    def pool(self, x: str, kind: str = "max", k: int = 2, stride: int = 2, pad: int = 0) -> str:
        channels, *size = self.shape(x)
        n = len(size)
        return self.put(
            Pooling,
            [x],
            (channels, *[(s + 2 * pad - k) // stride + 1 for s in size]),
            self.graph.types[x].quantizer if kind == "max" else None,
            kind=kind,
            kernel=(k,) * n,
            strides=(stride,) * n,
            pads=((pad, pad),) * n,
        )

    def global_average(self, x: str) -> str:
        return self.put(
            Pooling,
            [x],
            (self.shape(x)[0], 1, 1),
            kind="avg",
            kernel=self.shape(x)[1:],
            strides=(1, 1),
            pads=((0, 0), (0, 0)),
        )

    def reshape(self, x: str, *shape: int) -> str:
        return self.put(Reshape, [x], shape, self.graph.types[x].quantizer, shape=shape)

    def flatten(self, x: str) -> str:
        return self.reshape(x, int(np.prod(self.shape(x))))

    def transpose(self, x: str, *perm: int) -> str:
        return self.put(Transpose, [x], [self.shape(x)[p] for p in perm], self.graph.types[x].quantizer, perm=perm)

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs = list(outputs)
        return self.graph.check()


def conv_bn_relu(net: Net, x: str, out: int, stride: int = 1, k: int = 3) -> str:
    return net.quant(net.clip(net.bn(net.conv(x, out, k, stride))))


def resnet18(width: int = 4, size: int = 32) -> Graph:
    """Post-activation, the skips in float: 7×7 stem, 4 stages of 2 blocks, global pooling, dense layer."""
    net = Net(3, size, size)
    y = net.clip(net.bn(net.conv(net.quant("x", PIXELS), width, 7, 2)))
    x = net.pool(y, k=3, stride=2, pad=1)
    for stage in range(4):
        for block in range(2):
            out, stride = width << stage, 2 if stage and not block else 1
            codes = net.quant(x)
            y = net.bn(net.conv(conv_bn_relu(net, codes, out, stride), out))
            skip = net.bn(net.conv(codes, out, 1, stride)) if stride == 2 else x
            x = net.clip(net.add(y, skip))
    y = net.quant(net.global_average(x), PIXELS)
    return net.done(net.dense(net.flatten(y), 10, "y"))


def preactivation(width: int = 8, size: int = 8) -> Graph:
    """x → BN → ReLU → quantize → conv, the skip before the BN: two blocks."""
    net = Net(3, size, size)
    x = net.conv(net.quant("x", PIXELS), width)
    for _ in range(2):
        y = conv_bn_relu_first(net, x, width)
        y = conv_bn_relu_first(net, y, width)
        x = net.add(y, x)
    y = net.quant(net.clip(net.bn(x)))
    return net.done(net.dense(net.flatten(net.quant(net.global_average(y), PIXELS)), 10, "y"))


def conv_bn_relu_first(net: Net, x: str, out: int) -> str:
    return net.conv(net.quant(net.clip(net.bn(x))), out)


def inception(size: int = 8) -> Graph:
    """Four branches into a concat, twice, with a pool between, as in GoogLeNet; each branch has its own quantizer."""
    net = Net(3, size, size)
    x = net.quant("x", PIXELS)
    for block in range(2):

        def end(y, spacing):
            return net.quant(net.clip(net.bn(y)), Quantizer(unsigned(2), spacing))

        one = end(net.conv(x, 8, 1), 0.5)
        three = end(net.conv(end(net.conv(x, 8, 1), 0.5), 8, 3), 0.25)
        five = end(net.conv(end(net.conv(x, 8, 1), 0.5), 8, 5), 0.75)
        pooled = end(net.conv(net.pool(x, k=3, stride=1, pad=1), 8, 1), 0.5)
        x = net.concat(one, three, five, pooled)
        if not block:
            x = net.pool(x)
    y = net.quant(net.global_average(x), PIXELS)
    return net.done(net.dense(net.flatten(y), 10, "y"))


def vgg_head(size: int = 4) -> Graph:
    """A flattened map into dense layers, the quantizer behind the flatten."""
    net = Net(3, size, size)
    y = net.bn(net.conv(net.quant("x", PIXELS), 8))
    y = net.quant(net.flatten(net.pool(net.clip(y))), A4)
    return net.done(net.dense(net.quant(net.clip(net.dense(y, 16))), 10, "y"))
