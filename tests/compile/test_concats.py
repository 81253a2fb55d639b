"""Concats and channel shuffles without a quantizer behind them keep their inputs' grids: what reads them stays on integers,
as ONNX Runtime computes it; what does not is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.float_operators import float_operators, require_quantized
from mpcompile.api.verify import verify
from mpcompile.errors import ModelError
from mpcompile.frontend import load_source
from mpcompile.witness.reading import check_reading
from tests.data.hand_made import Builder

SIZE, CHANNELS = 6, 8


class Network(Builder):
    """Of maps of SIZE², quantized after every convolution, each on a grid of its own."""

    def __init__(self, name: str):
        super().__init__(name, 17, (CHANNELS, SIZE, SIZE))
        self.grids = 0
        self.x = self.quantized("x", 0.02)

    def quantized(self, x: str, scale: float) -> str:
        s, z = self.constant(np.float32(scale)), self.constant(120, np.uint8)
        return self.add("DequantizeLinear", self.add("QuantizeLinear", x, s, z), s, z)

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> str:
        self.grids += 1
        w = self.constant(self.rng.integers(-100, 101, (outputs, inputs // groups, kernel, kernel)), np.int8)
        w = self.add("DequantizeLinear", w, np.float32(0.01))
        y = self.add("Conv", x, w, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, group=groups)
        return self.quantized(y, 0.03 + 0.007 * self.grids)

    def concat(self, *parts: str) -> str:
        return self.add("Concat", *parts, axis=1)

    def two(self, first: int = CHANNELS, second: int = CHANNELS) -> str:
        return self.concat(self.conv(self.x, CHANNELS, first), self.conv(self.x, CHANNELS, second))

    def ints(self, *numbers: int) -> str:
        return self.constant(numbers, np.int64)

    def shuffled(self, x: str, channels: int, groups: int = 2) -> str:
        apart = self.add("Reshape", x, self.ints(1, groups, channels // groups, SIZE, SIZE))
        turned = self.add("Transpose", apart, perm=[0, 2, 1, 3, 4])
        return self.add("Reshape", turned, self.ints(1, channels, SIZE, SIZE))

    def half(self, x: str, channels: int, which: int) -> str:
        start, end = which * channels // 2, (which + 1) * channels // 2
        return self.add("Slice", x, self.ints(start), self.ints(end), self.ints(1))

    def saved(self, path, y: str):
        onnx.save(self.model(y), path)
        return path


def shufflenet(n: Network, blocks: int = 3) -> str:
    wide = 2 * CHANNELS
    x = n.two()
    for _ in range(blocks):
        x = n.shuffled(x, wide)
        kept, y = n.half(x, wide, 0), n.half(x, wide, 1)
        y = n.conv(n.conv(y, CHANNELS, CHANNELS, 1), CHANNELS, CHANNELS, 3, CHANNELS)
        x = n.concat(kept, n.conv(y, CHANNELS, CHANNELS, 1))
    return n.conv(n.shuffled(x, wide), wide, 5)


def random_moves(n: Network, steps: int = 5) -> str:
    """Concats, shuffles, slices and convolutions in any order."""
    rng, maps = n.rng, [(n.x, CHANNELS), (n.conv(n.x, CHANNELS, 4), 4)]
    for _ in range(steps):
        x, channels = maps[int(rng.integers(len(maps)))]
        y, others = maps[-1]
        what = rng.choice(("concat", "shuffle", "slice", "conv"))
        if what == "concat":
            maps.append((n.concat(x, y), channels + others))
        elif what == "shuffle":
            groups = int(rng.choice([g for g in (2, 3, 4) if others % g == 0] or [1]))
            maps.append((n.shuffled(y, others, groups), others))
        elif what == "slice":
            start, step = int(rng.integers(0, others // 2)), int(rng.integers(1, 3))
            left = len(range(start, others, step))
            made = n.add("Slice", y, n.ints(start), n.ints(others), n.ints(1), n.ints(step))
            maps.append((made, left))
        else:
            maps.append((n.conv(y, others, 6), 6))
    return n.conv(n.concat(*(x for x, _ in maps[-2:])), sum(c for _, c in maps[-2:]), 5)


ON_INTEGERS = {
    "conv": lambda n: n.conv(n.two(), 16, 5),
    "grouped across the parts": lambda n: n.conv(n.conv(n.two(6, 10), 16, 8, groups=4), 8, 5),
    "shuffled": lambda n: n.conv(n.shuffled(n.two(), 16), 16, 5),
    "shuffled by 4, unequal parts": lambda n: n.conv(n.shuffled(n.two(6, 10), 16, 4), 16, 5),
    "half of a shuffle": lambda n: n.conv(n.half(n.shuffled(n.two(), 16), 16, 1), 8, 5),
    "parts of one": lambda n: n.conv(n.half(n.shuffled(n.two(8, 8), 16, 8), 16, 0), 8, 5),
    "split beside a convolution": lambda n: n.conv(
        n.concat(n.half(n.shuffled(n.two(), 16), 16, 0), n.conv(n.x, 8, 4)), 12, 5
    ),
    "relu": lambda n: n.conv(n.add("Relu", n.two()), 16, 5),
    "relus": lambda n: n.conv(n.concat(n.add("Relu", n.x), n.add("Relu", n.conv(n.x, 8, 8))), 16, 5),
    "pooled": lambda n: n.conv(n.add("MaxPool", n.two(), kernel_shape=[2, 2], strides=[2, 2]), 16, 5),
    "flat": lambda n: n.add(
        "MatMul",
        n.add("Flatten", n.two()),
        n.add("DequantizeLinear", n.constant(n.rng.integers(-9, 10, (16 * SIZE**2, 3)), np.int8), np.float32(0.1)),
    ),
    "shufflenet": shufflenet,
} | {f"random {i}": lambda n: random_moves(n) for i in range(12)}


@pytest.mark.parametrize("name", ON_INTEGERS)
def test_what_reads_it_stays_on_integers(tmp_path, name):
    network = Network(name)
    source = load_source(network.saved(tmp_path / "m.onnx", ON_INTEGERS[name](network)))
    assert [n.op_type for n in float_operators(source.graph)] == []
    require_quantized(source.graph)
    x = np.random.default_rng(0).normal(0, 1, (2, CHANNELS, SIZE, SIZE)).astype(np.float32)
    found = check_reading(source, {"x": x})
    assert found.equal and not found.unchecked, found.summary


IN_FLOAT = {
    "an output": (lambda n: n.two(), "Concat", "it is an output"),
    "a sum": (lambda n: n.quantized(n.add("Add", n.two(), n.conv(n.x, 8, 16)), 0.1), "Concat", "in one piece"),
    "depthwise behind a shuffle": (lambda n: n.conv(n.shuffled(n.two(), 16), 16, 16, 3, 16), "Conv", "not quantized"),
}


@pytest.mark.parametrize("name", IN_FLOAT)
def test_what_turns_float_is_named(tmp_path, name):
    make, op, reason = IN_FLOAT[name]
    network = Network(name)
    source = load_source(network.saved(tmp_path / "m.onnx", make(network)))
    told = {n.op_type: n.reason for n in float_operators(source.graph)}
    assert reason in told[op] and all(told.values())
    with pytest.raises(ModelError, match="would run in float: "):
        require_quantized(source.graph)
    assert check_reading(source, {"x": np.ones((1, CHANNELS, SIZE, SIZE), np.float32)}).equal


def test_a_bundle_of_shuffles_equals_the_reference(tmp_path):
    network = Network("bundle")
    path = network.saved(tmp_path / "m.onnx", shufflenet(network, 1))
    report = verify(path, compile_model(path, output=tmp_path / "m.mpc"), threads=1)
    assert report.equal, report.summary
