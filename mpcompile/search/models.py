"""Networks to search: residual CNNs for small images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mpcompile.search.layers import BitChoice, ConvLayer, DenseLayer, FlowNetwork, ForwardPass
from mpcompile.search.quantizers import ACTIVATIONS, WEIGHTS, Pact

ENDS = 8
"""Bits of the first and the last layer, and of what they read."""


class _Build:
    """Knobs for one network."""

    def __init__(self, weights: Sequence[int], activations: Sequence[int], weight: str, activation: str):
        self.w, self.a, self.weight, self.activation = tuple(weights), tuple(activations), weight, activation

    def weights(self, name: str, bits: Sequence[int] | None = None) -> BitChoice:
        return BitChoice(f"{name}.weight", WEIGHTS[self.weight](sorted(bits or self.w)))

    def tensor(self, name: str, bits: Sequence[int] | None = None) -> BitChoice:
        return BitChoice(name, ACTIVATIONS[self.activation](sorted(bits or self.a)))

    def conv(self, name: str, i: int, o: int, kernel: int, stride: int, bits: Sequence[int] | None = None) -> ConvLayer:
        return ConvLayer(name, i, o, kernel, stride, self.weights(name, bits))


class Block(nn.Module):
    """relu(second(q(first(q(x)))) + skip), the skip x itself in float, or a 1×1 convolution of q(x) where the shape
    changes.

    q(x) is one tensor: `first` and `down` read it at the same bits.
    """

    def __init__(self, name: str, i: int, o: int, stride: int, build: _Build):
        super().__init__()
        self.name = name
        self.input, self.middle = build.tensor(f"{name}.input"), build.tensor(f"{name}.middle")
        self.first = build.conv(f"{name}.first", i, o, 3, stride)
        self.second = build.conv(f"{name}.second", o, o, 3, 1)
        self.down = build.conv(f"{name}.down", i, o, 1, stride) if stride > 1 or i != o else None

    def flow(self, x, ops: ForwardPass):
        q = ops.quantize(self.input, x)
        y = ops.conv(self.second, ops.quantize(self.middle, ops.conv(self.first, q)))
        skip = x if self.down is None else ops.conv(self.down, q)
        return ops.relu(f"{self.name}.out", ops.add(f"{self.name}.add", y, skip))


class ResNet(FlowNetwork):
    """Stem 3×3, stages of basic blocks, mean, dense. ResNet-20 is widths (16, 32, 64), blocks (3, 3, 3).

    Every stage but the first halves the map; `stem_stride` 2 halves it before. First and last layer have 8 bits.
    """

    def __init__(
        self,
        widths: Sequence[int] = (16, 32, 64),
        blocks: Sequence[int] = (3, 3, 3),
        *,
        channels: int = 3,
        side: int = 32,
        classes: int = 10,
        stem_stride: int = 1,
        weights: Sequence[int] = (1, 2, 3, 4, 8),
        activations: Sequence[int] = (1, 2, 3, 4, 8),
        weight: str = "edmips",
        activation: str = "pact",
    ):
        super().__init__()
        build = _Build(weights, activations, weight, activation)
        self.input_shape, self.classes = (channels, side, side), classes
        self.image = BitChoice("image.codes", Pact((ENDS,), alpha=1.0))
        self.stem = build.conv("stem", channels, widths[0], 3, stem_stride, (ENDS,))
        self.blocks = nn.ModuleList()
        i = widths[0]
        for s, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for b in range(count):
                stride = 2 if s and not b else 1
                self.blocks.append(Block(f"stage{s + 1}.block{b + 1}", i, width, stride, build))
                i = width
        self.last = build.tensor("head.input", (ENDS,))
        self.head = DenseLayer("head", i, classes, build.weights("head", (ENDS,)))

    def flow(self, x, ops: ForwardPass):
        x = ops.relu("stem.out", ops.conv(self.stem, ops.quantize(self.image, x)))
        for block in self.blocks:
            assert isinstance(block, Block)
            x = block.flow(x, ops)
        return ops.dense(self.head, ops.quantize(self.last, ops.mean("mean", x)))
