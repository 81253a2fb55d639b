"""The demo's network: a small residual CNN, in float, or with a bitwidth of its own for every convolution (Brevitas).

    stem 3×3 to 64 channels, max pool
    four residual blocks of two 3×3 convolutions: 64 channels at 16×16, 128 at 8×8, 128 at 8×8, 256 at 4×4
    mean, dense

Both forms have the same modules under the same names, so the quantized one starts from the float one's weights. Images
are float32 [N, C, 32, 32] in −1..1. The skip connection stays in float, as low-bit residual networks keep it; every
convolution quantizes its own input, so one tensor may be read at two bitwidths.
"""

from __future__ import annotations

from dataclasses import dataclass

import brevitas.nn as qnn
import torch
from brevitas.inject.enum import QuantType, ScalingImplType, StatsOp
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from torch import Tensor, nn


@dataclass(frozen=True)
class Bits:
    """Bits of a layer's weights and of its input."""

    weight: int
    input: int


PLAN = {
    "stem": Bits(8, 8),
    "blocks.0.first": Bits(2, 2),
    "blocks.0.second": Bits(1, 2),
    "blocks.1.first": Bits(3, 4),
    "blocks.1.second": Bits(1, 2),
    "blocks.1.skip": Bits(8, 8),
    "blocks.2.first": Bits(1, 2),
    "blocks.2.second": Bits(3, 3),
    "blocks.3.first": Bits(2, 2),
    "blocks.3.second": Bits(1, 2),
    "blocks.3.skip": Bits(4, 8),
    "head": Bits(8, 8),
}
"""Every layer's bits. None at all (an empty dict) is the float network.

Inputs take 2 bits or more: Brevitas 0.13 writes an unsigned 1-bit activation (0, 1) as BipolarQuant (−1, +1), which is
another function.
"""

POOLED = 8
"""Bits of the stem's output, which is pooled as codes."""

CALIBRATION_STEPS = 10
"""Batches from which activation quantizers take their first scales."""


class Weights(Int8WeightPerChannelFloat):
    """Signed weights with a learned scale per output channel, which starts at the largest magnitude."""

    scaling_impl_type = ScalingImplType.PARAMETER_FROM_STATS


class FewBitWeights(Weights):
    """For 2 and 3 bits the scale starts at mean + 1.5 deviations of the magnitude.

    From the largest magnitude most weights would round to 0.
    """

    scaling_stats_op = StatsOp.MEAN_SIGMA_STD
    sigma = 1.5


class BipolarWeights(Weights):
    """−s and +s; s starts at the channel's mean magnitude (XNOR-Net)."""

    quant_type = QuantType.BINARY
    scaling_stats_op = StatsOp.AVE


class Activations(Uint8ActPerTensorFloat):
    """Unsigned, with a learned scale that starts from the first batches' statistics."""

    collect_stats_steps = CALIBRATION_STEPS


class Images(Int8ActPerTensorFloat):
    """Signed: the images lie in −1..1."""

    collect_stats_steps = CALIBRATION_STEPS


def weights_of(bits: int):
    return BipolarWeights if bits == 1 else FewBitWeights if bits <= 3 else Weights


def activations(bits: int, signed: bool = False) -> nn.Module:
    return qnn.QuantIdentity(act_quant=Images if signed else Activations, bit_width=bits)


def conv(i: int, o: int, kernel: int, stride: int, bits: Bits | None) -> nn.Sequential:
    """Quantizer of the input, convolution, BatchNorm."""
    shape = dict(kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False)
    if bits is None:
        return nn.Sequential(nn.Identity(), nn.Conv2d(i, o, **shape), nn.BatchNorm2d(o))
    weight = dict(weight_quant=weights_of(bits.weight), weight_bit_width=bits.weight)
    return nn.Sequential(
        activations(bits.input, signed=i <= 3), qnn.QuantConv2d(i, o, **shape, **weight), nn.BatchNorm2d(o)
    )


class Block(nn.Module):
    """relu(second(relu(first(x))) + skip(x)); the skip is a 1×1 convolution where the shape changes."""

    def __init__(self, i: int, o: int, stride: int, plan: dict[str, Bits], name: str):
        super().__init__()
        self.first = conv(i, o, 3, stride, plan.get(f"{name}.first"))
        self.second = conv(o, o, 3, 1, plan.get(f"{name}.second"))
        self.skip = conv(i, o, 1, stride, plan.get(f"{name}.skip")) if stride > 1 or i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.skip(x))


class Network(nn.Module):
    """float32 [N, channels, 32, 32] → logits [N, classes]."""

    def __init__(self, channels: int, classes: int, plan: dict[str, Bits]):
        super().__init__()
        self.stem = conv(channels, 64, 3, 1, plan.get("stem"))
        self.halve = nn.Sequential(activations(POOLED) if plan else nn.Identity(), nn.MaxPool2d(2))
        sizes = [(64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2)]
        self.blocks = nn.Sequential(*(Block(i, o, s, plan, f"blocks.{n}") for n, (i, o, s) in enumerate(sizes)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        head = plan.get("head")
        if head is None:
            self.head = nn.Sequential(nn.Identity(), nn.Linear(256, classes))
        else:
            self.head = nn.Sequential(
                activations(head.input),
                qnn.QuantLinear(256, classes, bias=True, weight_quant=Weights, weight_bit_width=head.weight),
            )

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.halve(torch.relu(self.stem(x))))
        return self.head(self.pool(x).flatten(1))
