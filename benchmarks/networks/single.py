"""Single convolutions as small networks: the 3×3 layers of ResNet-18, each measured by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.networks.builder import Bits, Builder, Network


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
        return self.out**2 * self.o * self.c * self.k**2

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


def conv_layer(shape: ConvShape, bits: Bits | None, *, seed: int = 0, tail: int = 16) -> Network:
    """One layer, node `conv`: quantized input → convolution, BatchNorm, ReLU, quantizer → a small 1×1 convolution that
    keeps the layer's output quantized and packed. In float (bits None) it ends after the ReLU, without the tail."""
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
