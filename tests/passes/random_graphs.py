"""Random small graphs of real-valued operators, with values that use the grids they are put on."""

from __future__ import annotations

import numpy as np

from mpcompile.ir.graph import (
    ROUNDINGS,
    Add,
    Affine,
    Along,
    Clip,
    Concat,
    Conv,
    Dense,
    Graph,
    Listed,
    Mul,
    Node,
    Pooling,
    PRelu,
    Quantize,
    QuantizedWeight,
    Quantizer,
    Reshape,
    Table,
    TensorType,
    Transpose,
    View,
)
from mpcompile.ir.grid import Grid, bipolar, half_integer, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.reference.interpret import interpret


def weight_grid(rng) -> Grid:
    bits = int(rng.integers(1, 9))
    return [
        twos_complement(max(bits, 2)),
        odd(bits),
        bipolar(),
        unsigned(bits, int(rng.integers(0, 1 << bits))),
        sign_magnitude(1 + bits % 3),
        half_integer(bits, 2 * int(rng.integers(0, 1 << bits)) + 1),
    ][rng.integers(6)]


def quantizer(rng, values: np.ndarray) -> Quantizer:
    """A random quantizer whose range is about that of `values`; spacings are powers of two now and then, so that there
    are ties."""
    bits = int(rng.integers(1, 9))
    spread = float(np.std(values)) + 1e-3
    spacing = spread * 3 / (1 << bits)
    if rng.random() < 0.3:
        spacing = 2.0 ** round(np.log2(spacing))
    spacing = float(np.float32(spacing))
    first = bool(rng.random() < 0.6)
    rounding = ROUNDINGS[rng.integers(len(ROUNDINGS) - 1)] if first and rng.random() < 0.4 else "half_even"
    kind = rng.integers(5)
    if kind == 0:
        return Quantizer(bipolar(), 2 * spacing, 0.0, 0, "sign")
    if kind == 1:
        zero = int(rng.integers(0, 1 << bits))
        return Quantizer(unsigned(bits, zero), spacing, zero, 0, rounding, first)
    if kind == 2 and first:
        twice = 2 * int(rng.integers(0, 1 << bits)) + 1
        return Quantizer(half_integer(bits, twice), spacing, twice / 2, 0, rounding, first)
    bits = max(bits, 2)
    narrow = bool(rng.random() < 0.3)
    if kind == 3:
        return Quantizer(unsigned(bits, narrow=narrow), spacing, 0, 0, rounding, first)
    return Quantizer(twos_complement(bits, narrow=narrow), spacing, 0, -(1 << bits - 1) + narrow, rounding, first)


class Builder:
    """Adds random operators to `graph`; `values` holds every tensor for the one input that is made."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        shape = [(3, 7, 9), (5, 8, 8), (6, 11), (9,)][self.rng.integers(4)]
        self.graph = Graph([], {"x": TensorType(shape)}, ["x"], [])
        self.inputs = {"x": self.rng.normal(0, 1, shape).astype(np.float32)}
        self.values = dict(self.inputs)
        self.tensors = ["x"]

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.graph.types[tensor].shape

    def grid(self, tensor: str):
        return self.graph.types[tensor].quantizer

    def put(self, of_class, inputs: list[str], of_shape, of: Quantizer | None = None, **options) -> str:
        name = f"{of_class.__name__.lower()}{len(self.graph.nodes)}"
        node: Node = of_class(name, inputs, [name], **options)
        self.graph.nodes.append(node)
        self.graph.types[name] = TensorType(tuple(int(n) for n in of_shape), of)
        one = Graph([node], self.graph.types, list(dict.fromkeys(inputs)), [name])
        self.values[name] = interpret(one, {t: self.values[t] for t in inputs})[name]
        self.tensors.append(name)
        return name

    def pick(self, fits=lambda t: True) -> str | None:
        """A tensor; late ones are likelier."""
        found = [t for t in self.tensors if fits(t)]
        return found[-1 - min(int(self.rng.exponential(1.5)), len(found) - 1)] if found else None

    def quantize(self, tensor: str) -> str:
        q = quantizer(self.rng, self.values[tensor])
        return self.put(Quantize, [tensor], self.shape(tensor), q, quantizer=q)

    def joins(self, x: str, y: str) -> bool:
        """Whether a concat takes both."""
        a, b = self.shape(x), self.shape(y)
        return len(a) == len(b) and a[1:] == b[1:]

    def codes(self) -> str:
        """A tensor that a contraction may read: quantized, or a concat of quantized ones."""
        tensor = self.pick()
        if not self.grid(tensor):
            tensor = self.quantize(tensor)
        mates = [t for t in self.tensors if t != tensor and self.grid(t) and self.joins(t, tensor)]
        if mates and self.rng.random() < 0.35:
            mate = mates[self.rng.integers(len(mates))]
            channels = self.shape(tensor)[0] + self.shape(mate)[0]
            same = self.grid(tensor) if self.grid(tensor) == self.grid(mate) else None
            tensor = self.put(Concat, [tensor, mate], (channels, *self.shape(tensor)[1:]), same)
        return tensor

    def weight(self, shape, per_channel: bool) -> QuantizedWeight:
        grid = weight_grid(self.rng)
        scale = self.rng.uniform(0.5, 1.5, shape[0] if per_channel else 1)
        scale /= grid.max_abs * np.sqrt(np.prod(shape[1:]))
        return QuantizedWeight(self.rng.choice(grid.values, shape), grid, scale)

    def conv(self) -> None:
        tensor = self.codes()
        channels, *size = self.shape(tensor)
        if not size:
            return self.dense(tensor)
        groups = [1, 1, channels, 2 if channels % 2 == 0 else 1][self.rng.integers(4)]
        out = (
            int(self.rng.integers(1, 4)) * groups
            if groups > 1 and groups < channels
            else channels
            if groups > 1
            else int(self.rng.integers(1, 20))
        )
        kernel, strides, pads, dilations, after = [], [], [], [], []
        for n in size:
            k, s, d = int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3)), int(self.rng.integers(1, 3))
            before, behind = int(self.rng.integers(0, k)), int(self.rng.integers(0, k))
            if n + before + behind < (k - 1) * d + 1:
                k = d = 1
                before = behind = 0
            kernel.append(k), strides.append(s), dilations.append(d), pads.append((before, behind))
            after.append((n + before + behind - (k - 1) * d - 1) // s + 1)
        bias = self.rng.normal(0, 0.3, out) if self.rng.random() < 0.5 else None
        weight = self.weight((out, channels // groups, *kernel), self.rng.random() < 0.5)
        self.put(
            Conv,
            [tensor],
            (out, *after),
            weight=weight,
            bias=bias,
            strides=tuple(strides),
            pads=tuple(pads),
            dilations=tuple(dilations),
            groups=groups,
        )

    def dense(self, tensor: str | None = None) -> None:
        tensor = tensor or self.codes()
        size = int(np.prod(self.shape(tensor)))
        if len(self.shape(tensor)) > 1:
            tensor = self.put(Reshape, [tensor], (size,), self.grid(tensor), shape=(size,))
            if self.rng.random() < 0.3:
                tensor = self.quantize(tensor)
            if not self.grid(tensor) and not self._of_codes(tensor):
                tensor = self.quantize(tensor)
        out = int(self.rng.integers(1, 12))
        self.put(Dense, [tensor], (out,), weight=self.weight((out, size), False), bias=self.rng.normal(0, 0.3, out))

    def _of_codes(self, tensor: str) -> bool:
        return bool(self.grid(tensor)) or isinstance(self.graph.producer().get(tensor), (Concat, Reshape))

    def unary(self) -> None:
        tensor = self.pick()
        shape = self.shape(tensor)
        channels = shape[0]
        several = channels if self.rng.random() < 0.6 else 1
        match self.rng.integers(5):
            case 0 | 1:
                a = self.rng.normal(1, 0.7, several)
                self.put(Affine, [tensor], shape, a=a, b=self.rng.normal(0, 0.3, several) * (self.rng.random() < 0.8))
            case 2:
                lo, hi = [(0, np.inf), (0, 1.0), (-0.75, 0.8), (-np.inf, 0.5)][self.rng.integers(4)]
                self.put(Clip, [tensor], shape, lo=lo, hi=hi)
            case 3:
                self.put(PRelu, [tensor], shape, slope=self.rng.uniform(-0.1, 0.4, several))
            case 4:
                self.quantize(tensor)

    def add(self) -> None:
        tensor = self.pick()
        mate = self.pick(lambda t: self.shape(t) == self.shape(tensor))
        self.put(Add, [tensor, mate], self.shape(tensor))

    def residual(self) -> None:
        """Two convolutions beside a skip, or beside a third on the skip: what residual networks are made of."""
        rng, start = self.rng, self.pick(lambda t: len(self.shape(t)) == 3)
        if start is None:
            return
        codes = start if self.grid(start) else self.quantize(start)
        channels, h, w = self.shape(start)
        out = channels if rng.random() < 0.5 else channels + 2

        def conv(tensor, filters, k):
            weight = self.weight((filters, self.shape(tensor)[0], k, k), True)
            made = self.put(Conv, [tensor], (filters, h, w), weight=weight, pads=((k // 2, k // 2),) * 2)
            a, b = rng.normal(1, 0.5, filters), rng.normal(0, 0.3, filters)
            return self.put(Affine, [made], (filters, h, w), a=a, b=b)

        y = self.put(Clip, [conv(codes, out, 3)], (out, h, w), lo=0)
        y = conv(self.quantize(y), out, 3)
        skip = start if out == channels else conv(codes, out, 1)
        y = self.put(Add, [y, skip], (out, h, w))
        y = self.put(Clip, [y], (out, h, w), lo=0)
        if rng.random() < 0.5:
            self.quantize(y)

    def pool(self) -> None:
        tensor = self.pick(lambda t: len(self.shape(t)) > 1)
        if tensor is None:
            return
        channels, *size = self.shape(tensor)
        kind = ["max", "avg"][self.rng.integers(2)]
        kernel = [int(self.rng.integers(1, min(n, 3) + 1)) for n in size] if self.rng.random() < 0.7 else size
        strides = [int(self.rng.integers(1, 3)) for _ in size]
        pads = [(int(self.rng.integers(0, (k + 1) // 2)), int(self.rng.integers(0, (k + 1) // 2))) for k in kernel]
        after = [(n + a + b - k) // s + 1 for n, k, s, (a, b) in zip(size, kernel, strides, pads)]
        self.put(
            Pooling,
            [tensor],
            (channels, *after),
            self.grid(tensor) if kind == "max" else None,
            kind=kind,
            kernel=tuple(kernel),
            strides=tuple(strides),
            pads=tuple(pads),
        )

    def concat(self) -> None:
        tensor = self.pick()
        mate = self.pick(lambda t: self.joins(t, tensor))
        same = self.grid(tensor) if self.grid(tensor) == self.grid(mate) else None
        self.put(Concat, [tensor, mate], (self.shape(tensor)[0] + self.shape(mate)[0], *self.shape(tensor)[1:]), same)

    def table(self) -> None:
        """A function of codes, now and then times these codes (SiLU)."""
        tensor = self.pick(lambda t: bool(self.grid(t)))
        tensor = tensor or self.quantize(self.pick())
        of = self.grid(tensor)
        x = of.grid.values * of.scale
        values = [np.tanh(x), 1 / (1 + np.exp(-x)), np.abs(x), self.rng.normal(0, 1, len(x))][self.rng.integers(4)]
        made = self.put(Table, [tensor], self.shape(tensor), values=values.astype(np.float32))
        made = self.quantize(made) if self.rng.random() < 0.4 else made
        if self.rng.random() < 0.5:
            self.put(Mul, [tensor, made], self.shape(tensor))

    def product(self) -> None:
        tensor = self.pick()
        mate = self.pick(lambda t: self.shape(t) == self.shape(tensor))
        self.put(Mul, [tensor, mate], self.shape(tensor))

    def gate(self) -> None:
        """Each channel times a number of its own, or each pixel."""
        tensor = self.pick(lambda t: len(self.shape(t)) == 3)
        if tensor is None:
            return
        shape = self.shape(tensor)
        of_channels = self.rng.random() < 0.7
        whole = Along(1 if not of_channels else shape[0])
        ones = (whole, Along(1), Along(1)) if of_channels else (whole, Along(shape[1]), Along(shape[2]))
        small = self.put(View, [tensor], tuple(a.size for a in ones), self.grid(tensor), along=ones)
        small = self.quantize(small) if self.rng.random() < 0.5 else small
        spread = tuple(Along(n, 0, 1, 1 if a.size == n else n) for a, n in zip(ones, shape))
        large = self.put(View, [small], shape, self.grid(small), along=spread)
        self.put([Mul, Add][self.rng.integers(2)], [tensor, large], shape)

    def view(self) -> None:
        """A slice with steps, backwards too, of which elements are repeated."""
        tensor = self.pick()
        along = []
        for n in self.shape(tensor):
            match self.rng.integers(4):
                case 0 if n > 1:
                    start = int(self.rng.integers(0, n - 1))
                    along.append(Along(int(self.rng.integers(1, n - start + 1)), start))
                case 1 if n > 1:
                    step = int(self.rng.integers(1, 3))
                    along.append(Along(-(-n // step), n - 1, -step))
                case 2:
                    repeat = int(self.rng.integers(1, 4))
                    along.append(Along(n * repeat, 0, 1, repeat))
                case _:
                    along.append(Along(n))
        self.put(View, [tensor], tuple(a.size for a in along), self.grid(tensor), along=tuple(along))

    def rearrange(self) -> None:
        tensor = self.pick(lambda t: len(self.shape(t)) == 3)
        if tensor is None:
            return
        shape = self.shape(tensor)
        if self.rng.random() < 0.5:
            perm = tuple(int(p) for p in self.rng.permutation(3))
            self.put(Transpose, [tensor], tuple(shape[p] for p in perm), self.grid(tensor), perm=perm)
        else:
            to = (shape[0], shape[1] * shape[2])
            self.put(Reshape, [tensor], to, self.grid(tensor), shape=to)

    def regroup(self, tensor: str, split: tuple[int, ...], perm: tuple[int, ...], to: tuple[int, ...]) -> str:
        """Reshaped to `split`, its axes permuted, reshaped to `to`; what is between is for no other operator."""
        of = self.grid(tensor)
        apart = self.put(Reshape, [tensor], split, of, shape=split)
        turned = tuple(split[p] for p in perm)
        moved = self.put(Transpose, [apart], turned, of, perm=perm)
        self.tensors = [t for t in self.tensors if t not in (apart, moved)]
        return self.put(Reshape, [moved], to, of, shape=to)

    def divisor(self, n: int) -> int:
        found = [d for d in range(1, n + 1) if n % d == 0]
        return found[self.rng.integers(len(found))]

    def blocks(self) -> None:
        """Blocks of pixels to channels or back, or channels shuffled, a part of it kept now and then; a quantizer and what
        differs between channels follow."""
        tensor = self.pick(lambda t: len(self.shape(t)) == 3)
        if tensor is None:
            return
        c, h, w = self.shape(tensor)
        g, by, bx = self.divisor(c), self.divisor(h), self.divisor(w)
        match self.rng.integers(4):
            case 0:
                tensor = self.regroup(tensor, (g, c // g, h, w), (1, 0, 2, 3), (c, h, w))
            case 1:
                split, to = (c, h // by, by, w // bx, bx), (c * by * bx, h // by, w // bx)
                tensor = self.regroup(tensor, split, (2, 4, 0, 1, 3), to)
            case 2:
                tensor = self.regroup(tensor, (g, c // g, h, w), (1, 2, 0, 3), (c // g, h * g, w))
            case 3:
                tensor = self.regroup(tensor, (c // g, g, h, w), (0, 2, 3, 1), (c // g, h, w * g))
        if self.rng.random() < 0.3:
            along = [Along(n - n // 3, n // 3) if self.rng.random() < 0.5 else Along(n) for n in self.shape(tensor)]
            self.put(View, [tensor], tuple(a.size for a in along), self.grid(tensor), along=tuple(along))
        if self.rng.random() < 0.5:
            self.unary()

    def listed(self) -> None:
        """Elements of some axes, in any order and as often as they come."""
        tensor = self.pick()
        shape = self.shape(tensor)
        along = [
            Listed(tuple(int(i) for i in self.rng.integers(0, n, int(self.rng.integers(1, n + 3)))))
            if self.rng.random() < 0.6
            else Along(n)
            for n in shape
        ]
        self.put(View, [tensor], tuple(a.size for a in along), self.grid(tensor), along=tuple(along))

    def rows(self) -> None:
        """A convolution of kernel 1 over a sequence or map whose channels are last, then maybe another, or an add."""
        tensor = self.pick(lambda t: len(self.shape(t)) > 1)
        if tensor is None:
            return
        for _ in range(int(self.rng.integers(1, 3))):
            tensor = tensor if self.grid(tensor) else self.quantize(tensor)
            *many, wide = self.shape(tensor)
            axes, out = len(many), int(self.rng.integers(1, 9))
            perm = (axes, *range(axes))
            turned = self.put(Transpose, [tensor], (wide, *many), self.grid(tensor), perm=perm)
            weight = self.weight((out, wide, *[1] * axes), True)
            ones = (1,) * axes
            y = self.put(
                Conv, [turned], (out, *many), weight=weight, strides=ones, pads=((0, 0),) * axes, dilations=ones
            )
            if self.rng.random() < 0.5:
                y = self.put(Affine, [y], (out, *many), a=self.rng.normal(1, 0.5, out), b=self.rng.normal(0, 0.3, out))
            y = self.put(Transpose, [y], (*many, out), perm=(*range(1, axes + 1), 0))
            if self.rng.random() < 0.5:
                y = self.put(Clip, [y], (*many, out), lo=0)
            if out == wide and self.rng.random() < 0.7:
                y = self.put(Add, [y, tensor], (*many, out))
            tensor = y


def random_graph(
    seed: int, operators: int = 12, picking: bool = False, moving: bool = False
) -> tuple[Graph, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(graph, inputs, every tensor's value by `interpret`). `picking`: with tables, products and views; `moving`: with
    blocks, shuffles, rows and lists of elements."""
    build = Builder(seed)
    steps = (
        [build.conv] * 5
        + [build.unary] * 6
        + [build.residual] * 2
        + [build.add, build.add, build.pool, build.pool, build.concat, build.dense, build.rearrange]
    )
    if picking:
        steps += [build.table] * 3 + [build.product, build.gate, build.gate] + [build.view] * 3
    if moving:
        steps += [build.blocks] * 5 + [build.listed] * 2 + [build.rows] * 4 + [build.rearrange] * 2
    build.conv()
    for _ in range(operators):
        steps[build.rng.integers(len(steps))]()
    read = {t for n in build.graph.nodes for t in n.inputs}
    leaves = [t for t in build.tensors if t not in read and t != "x"]
    build.graph.outputs = leaves + [t for t in build.tensors[1:] if t in read and build.rng.random() < 0.05]
    return build.graph.check(), build.inputs, build.values
