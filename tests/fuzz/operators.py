"""Operators that random networks have beside convolutions: functions, products, what picks and moves elements, rows,
choices and indices."""

from __future__ import annotations

from abc import abstractmethod
from math import prod, sqrt

import numpy as np
from onnx import TensorProto

FUNCTIONS = {
    "Sigmoid": 7, "Tanh": 7, "HardSigmoid": 7, "Elu": 7, "Softplus": 7, "Softsign": 7, "Selu": 7, "Exp": 7, "Erf": 9,
    "Celu": 12, "HardSwish": 14, "Mish": 18, "Gelu": 20, "Abs": 7, "Neg": 7, "Floor": 7, "Sin": 7, "Atan": 7,
}  # fmt: skip
"""Of one number, and the opset that has them first."""
INTERPOLATED = ("half_pixel", "asymmetric", "align_corners")


class Operators:
    """Methods of a RealNetwork: each appends an operator or a few, and makes what comes out free to be read."""

    random: object
    rng: np.random.Generator
    opset: int

    @abstractmethod
    def quantized(self, tensor: str) -> str: ...

    def maybe_quantized(self, tensor: str) -> str:
        return self.quantized(tensor) if self.random.random() < 0.7 else tensor

    def of_rank(self, *ranks: int) -> str | None:
        return self.pick(lambda t: len(self.shapes[t]) in ranks)

    def axes_form(self, op: str, tensor: str, axes: list[int], since: int, shape, **attributes) -> str:
        """An operator whose axes became an input in opset `since`."""
        if self.opset >= since:
            return self.put(op, tensor, self.constant(axes, np.int64), shape=shape, **attributes)
        return self.put(op, tensor, shape=shape, axes=axes, **attributes)

    def function(self) -> None:
        tensor = self.maybe_quantized(self.pick())
        known = [name for name, since in FUNCTIONS.items() if since <= self.opset]
        newer = [name for name in known if FUNCTIONS[name] >= 14]  # which few opsets have
        what = self.random.choice(known + newer * 3 + ["SiLU", "Sqrt"] * 2)
        if what == "Floor":  # a sum in another order lies on the other side of a whole number
            made = self.put(what, self.quantized(tensor))
        elif what == "SiLU":
            made = self.put("Mul", tensor, self.put("Sigmoid", tensor))
        elif what == "Sqrt":
            made = self.put("Sqrt", self.put("Abs", tensor))
        else:
            made = self.put(what, tensor)
        self.free_up(made)

    def two(self) -> None:
        """Of two tensors of one shape, or of a map and a number for each of its channels."""
        a = self.pick()
        b = self.pick(lambda t: self.shapes[t] == self.shapes[a])
        a, b = self.maybe_quantized(a), self.maybe_quantized(b)
        op = self.random.choice(("Mul", "Sub", "Max", "Min", "Add"))
        spread = self.spread[a] * self.spread[b] if op == "Mul" else 1.4 * max(self.spread[a], self.spread[b])
        self.free_up(self.put(op, *((a, b) if self.random.random() < 0.5 else (b, a)), spread=spread))

    def excite(self) -> None:
        tensor = self.of_rank(2, 3)
        if tensor is None:
            return self.two()
        read = self.maybe_quantized(tensor)
        channels, *size = self.shapes[read]
        scale = self.put("GlobalAveragePool", read, shape=(channels, *[1] * len(size)))
        weight = self.weights((channels, channels, *[1] * len(size)))
        scale = self.put("Conv", self.quantized(scale), weight, spread=self.spread[read] * sqrt(channels) * 0.3)
        scale = self.maybe_quantized(self.put(self.random.choice(("Sigmoid", "HardSigmoid")), scale, spread=0.5))
        self.free_up(
            self.put("Mul", *((read, scale) if self.random.random() < 0.7 else (scale, read)), shape=self.shapes[read])
        )

    # -- what picks and moves ------------------------------------------------------------------------------
    def pieces(self) -> None:
        tensor = self.maybe_quantized(self.pick())
        shape = self.shapes[tensor]
        axis = self.random.randint(1, len(shape))
        n = shape[axis - 1]
        along = lambda size: tuple(size if i == axis - 1 else s for i, s in enumerate(shape))
        what = self.random.choice(("slice", "slice", "gather", "split", "tile"))
        if what == "slice":
            first, step = self.random.randint(0, n - 1), self.random.choice((1, 1, 2))
            last = self.random.randint(first + 1, n)
            given = ([first], [last if self.random.random() < 0.7 else 1 << 40], [axis], [step])
            size = len(range(first, min(given[1][0], n), step))
            made = self.put("Slice", tensor, *(self.constant(g, np.int64) for g in given), shape=along(size))
        elif what == "gather":
            indices = (
                self.rng.permutation(n) if self.random.random() < 0.5 else np.arange(n)[:: self.random.choice((1, -1))]
            )
            made = self.put("Gather", tensor, self.constant(indices, np.int64), shape=along(len(indices)), axis=axis)
        elif what == "tile":
            repeats = [1] * (len(shape) + 1)
            repeats[axis] = 2
            made = self.put("Tile", tensor, self.constant(repeats, np.int64), shape=along(2 * n))
        else:
            first = self.random.randint(1, max(1, n - 1))
            sizes = [first, n - first] if n > 1 else [1]
            given = [self.constant(sizes, np.int64)] if self.opset >= 13 else []
            attributes = {} if given else {"split": sizes}
            made = self.put("Split", tensor, *given, shape=along(first), axis=axis, **attributes)
            if n > 1:
                other = made + ".rest"
                self.nodes[-1].output.append(other)
                self.shapes[other], self.spread[other] = along(n - first), self.spread[made]
                self.free_up(other)
        self.free_up(made)

    def resize(self) -> None:
        tensor = self.of_rank(3)
        if tensor is None:
            return self.pieces()
        read = self.maybe_quantized(tensor)
        c, h, w = self.shapes[read]
        if h * w > 400:
            return self.pieces()
        by = (self.random.randint(1, 3), self.random.randint(1, 2))
        options = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        if self.random.random() < 0.4:
            options = dict(mode="linear", coordinate_transformation_mode=self.random.choice(INTERPOLATED))
        scales = self.constant(np.array([1, 1, *by], np.float32))
        nothing = self.constant(np.zeros(0, np.float32)) if self.opset < 13 else ""
        made = self.put("Resize", read, nothing, scales, shape=(c, h * by[0], w * by[1]), **options)
        self.free_up(made)

    def blocks(self) -> None:
        """Depth to space, space to depth, a shuffle of channels."""
        tensor = self.of_rank(3)
        if tensor is None:
            return self.pieces()
        read = self.maybe_quantized(tensor)
        c, h, w = self.shapes[read]
        if c % 4 == 0 and self.random.random() < 0.5:
            mode = self.random.choice(("DCR", "CRD"))
            made = self.put("DepthToSpace", read, shape=(c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)
        elif h % 2 == w % 2 == 0 and c <= 8:
            made = self.put("SpaceToDepth", read, shape=(4 * c, h // 2, w // 2), blocksize=2)
        else:
            groups = next(g for g in (3, 2, 5, 1) if c % g == 0)
            apart = self.put(
                "Reshape",
                read,
                self.constant([1, groups, c // groups, h, w], np.int64),
                shape=(groups, c // groups, h, w),
            )
            turned = self.put("Transpose", apart, shape=(c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
            made = self.put("Reshape", turned, self.constant([1, c, h, w], np.int64), shape=(c, h, w))
        self.free_up(made)

    def padded(self) -> None:
        tensor = self.of_rank(3)
        if tensor is None:
            return self.pieces()
        read = self.maybe_quantized(tensor)
        c, h, w = self.shapes[read]
        mode = self.random.choice(("constant", "edge", "reflect"))
        ends = [self.random.randint(0, min(2, n - 1)) for n in (h, w, h, w)]
        given = [self.constant([0, 0, *ends[:2], 0, 0, *ends[2:]], np.int64)]
        if mode == "constant" and self.random.random() < 0.5:
            given.append(self.constant(np.float32(self.random.choice((0, 0.5, -1)))))
        made = self.put("Pad", read, *given, shape=(c, h + ends[0] + ends[2], w + ends[1] + ends[3]), mode=mode)
        self.free_up(made)

    def axes(self) -> None:
        tensor = self.maybe_quantized(self.of_rank(1, 2)) if self.of_rank(1, 2) else None
        if tensor is None:
            return self.pieces()
        shape = self.shapes[tensor]
        at = self.random.randint(1, len(shape) + 1)
        apart = self.axes_form("Unsqueeze", tensor, [at], 13, (*shape[: at - 1], 1, *shape[at - 1 :]))
        self.free_up(apart)
        if self.random.random() < 0.5:
            self.free_up(self.axes_form("Squeeze", self.maybe_quantized(apart), [at], 13, shape))

    # -- sums and rows -------------------------------------------------------------------------------------
    def reduced(self) -> None:
        tensor = self.maybe_quantized(self.of_rank(2, 3) or "x")
        shape = self.shapes[tensor]
        axes = sorted(self.random.sample(range(1, len(shape) + 1), self.random.randint(1, len(shape))))
        keep = int(self.random.random() < 0.6 or len(axes) == len(shape))
        after = [1 if i + 1 in axes else n for i, n in enumerate(shape)]
        if not keep:
            after = [n for i, n in enumerate(shape) if i + 1 not in axes]
        op, since = self.random.choice((("ReduceMean", 18), ("ReduceMax", 18), ("ReduceSum", 13), ("ReduceMin", 18)))
        spread = self.spread[tensor] * (sqrt(prod(shape)) if op == "ReduceSum" else 1)
        made = self.axes_form(op, tensor, axes, since, after, keepdims=keep)
        self.spread[made] = spread
        self.free_up(made)

    def softmax(self) -> None:
        tensor = self.maybe_quantized(self.pick())
        axis = self.random.randint(1, len(self.shapes[tensor]))
        self.free_up(self.put("Softmax", tensor, spread=0.3, axis=axis))

    def normalized(self) -> None:
        tensor = self.of_rank(3)
        if tensor is None:
            return self.softmax()
        read, channels = self.maybe_quantized(tensor), self.shapes[tensor][0]
        if self.opset >= 17 and self.random.random() < 0.5:
            wide = self.shapes[read][-1]
            given = self.rng.uniform(0.5, 1.5, wide), self.rng.normal(0, 0.3, wide)
            made = self.put("LayerNormalization", read, *given, spread=1.0, axis=-1)
        else:
            given = self.rng.uniform(0.5, 1.5, channels), self.rng.normal(0, 0.3, channels)
            made = self.put("InstanceNormalization", read, *given, spread=1.0)
        self.free_up(made)

    def rows(self) -> None:
        """A product of each row of a sequence or map with one matrix."""
        tensor = self.of_rank(2, 3)
        if tensor is None:
            return self.contract()
        read = self.quantized(tensor)
        *many, wide = self.shapes[read]
        outputs = self.random.randint(1, 12)
        spread = self.spread[read] * sqrt(wide) * 0.3
        made = self.put("MatMul", read, self.weights((wide, outputs), 1), shape=(*many, outputs), spread=spread)
        if self.random.random() < 0.5:
            made = self.put("Add", made, self.rng.normal(0, spread, outputs))
        self.free_up(made)

    def transposed(self) -> None:
        """A convolution from an output's side."""
        tensor = self.of_rank(3)
        if tensor is None or prod(self.shapes[tensor][1:]) > 200:
            return self.rows()
        read = self.quantized(tensor)
        channels, *size = self.shapes[read]
        filters, r = self.random.randint(1, 8), self.random
        kernel, strides, pads, more, after = [], [], [], [], []
        for n in size:
            k, s = r.randint(1, 3), r.randint(1, 2)
            a, b = r.randint(0, (k - 1) // 2), r.randint(0, (k - 1) // 2)
            extra = r.randint(0, s - 1)
            kernel.append(k), strides.append(s), pads.append((a, b)), more.append(extra)
            after.append((n - 1) * s + k - a - b + extra)
        if min(after) < 1:
            return self.rows()
        weight = self.weights((channels, filters, *kernel), 1)
        flat = [a for a, _ in pads] + [b for _, b in pads]
        spread = self.spread[read] * sqrt(channels * prod(kernel)) * 0.3
        options = dict(kernel_shape=kernel, strides=strides, pads=flat, output_padding=more)
        bias = self.bias(filters, spread)
        self.free_up(self.put("ConvTranspose", read, weight, *bias, shape=(filters, *after), spread=spread, **options))

    # -- integers ------------------------------------------------------------------------------------------
    def chosen(self) -> None:
        """A comparison and a choice by it."""
        tensor = self.quantized(self.pick())
        op = self.random.choice(("Greater", "Less") + (("GreaterOrEqual",) if self.opset >= 12 else ()))
        limit = self.constant(np.float32(self.random.uniform(-1, 1) * self.spread[tensor]))
        above = self.put(op, tensor, limit)
        made = self.put("Where", above, tensor, self.constant(np.float32(0.25)), spread=self.spread[tensor])
        del self.shapes[above]
        self.free_up(made)

    def index(self) -> None:
        """Where the largest is, as an output."""
        tensor = self.quantized(self.pick())
        shape = self.shapes[tensor]
        axis = self.random.randint(1, len(shape))
        op = self.random.choice(("ArgMax", "ArgMin"))
        made = self.put(
            op, tensor, shape=[1 if i == axis - 1 else n for i, n in enumerate(shape)], axis=axis, keepdims=1
        )
        self.kinds[made] = TensorProto.INT64
