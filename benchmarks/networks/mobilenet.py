"""MobileNet-v1 and -v2.

Depthwise convolutions are 8 bits wide, weights and input, whatever the rest has: with nine weights a channel they are
few operations, and low bits cost accuracy there first (HAQ, PROFIT). Pointwise convolutions have the network's bits.
"""

from __future__ import annotations

from benchmarks.networks.blocks import ENDS, Blocks
from benchmarks.networks.builder import Bits, Network

DEPTHWISE = 8

V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
"""(channels out, stride) of each separable block: Howard et al. 2017, table 1."""

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(expansion, channels out, blocks, first stride): Sandler et al. 2018, table 2."""


def mobilenet_v1(bits: Bits | None, *, size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """At `bits`, or in float32 where bits is None."""
    b = Blocks(bits, size, seed)
    x = b.relu(b.conv_bn(b.image(), 32, 3, 2, "stem", ENDS), "stem_relu")
    for i, (out, stride) in enumerate(V1):
        x = b.quant(_depthwise(b, x, stride, f"block{i}_depthwise", b.relu), f"block{i}_depthwise_out")
        x = b.conv_relu(x, out, 1, 1, f"block{i}_pointwise")
    return b.classifier(x, classes)


def mobilenet_v2(bits: Bits | None, *, size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """Inverted residuals with ReLU6; a bottleneck is linear, so its codes are signed. Residual adds are float."""
    b = Blocks(bits, size, seed)
    x, i, signed = b.relu6(b.conv_bn(b.image(), 32, 3, 2, "stem", ENDS), "stem_relu"), 0, False
    for expansion, out, count, first in V2:
        for stride in (first, *[1] * (count - 1)):
            x, signed = _inverted_residual(b, x, expansion, out, stride, f"block{i}", signed), True
            i += 1
    x = b.quant(x, "head_in", signed=True)
    return b.classifier(b.relu6(b.conv_bn(x, 1280, 1, 1, "head"), "head_relu"), classes)


def _depthwise(b: Blocks, x: str, stride: int, name: str, activation) -> str:
    """3×3 over `x` (float), its own quantizer before, activation after."""
    x = b.quant(x, f"{name}_in", DEPTHWISE)
    channels = len(b.values[x])
    return activation(b.conv_bn(x, channels, 3, stride, name, DEPTHWISE, groups=channels), f"{name}_relu")


def _inverted_residual(b: Blocks, x: str, expansion: int, out: int, stride: int, name: str, signed: bool) -> str:
    y = x
    if expansion > 1:
        y = b.conv_bn(b.quant(x, f"{name}_in", signed=signed), expansion * len(b.values[x]), 1, 1, f"{name}_expand")
        y = b.relu6(y, f"{name}_expand_relu")
    y = b.quant(_depthwise(b, y, stride, f"{name}_depthwise", b.relu6), f"{name}_depthwise_out")
    y = b.conv_bn(y, out, 1, 1, f"{name}_project")
    return b.add(x, y, f"{name}_add") if stride == 1 and len(b.values[x]) == out else y
