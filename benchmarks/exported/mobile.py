"""MobileNet-v3-small, EfficientNet-Lite0, ShuffleNet-v2 and DS-CNN (keyword spotting)."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.exported.blocks import ConvNormAct, InvertedResidual

V3_SMALL = (  # kernel, wide, outputs, excited, activation, stride
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
)
LITE0 = (  # expansion, kernel, stride, outputs, repeats
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def mobilenet_v3_small(classes: int = 1000) -> nn.Module:
    """(N, 3, H, W) → (N, classes); A. Howard et al., 2019."""
    blocks, channels = [ConvNormAct(3, 16, 3, 2, act="hardswish")], 16
    for kernel, wide, outputs, excited, act, stride in V3_SMALL:
        squeezed = max(8, (wide // 4 + 4) // 8 * 8) if excited else 0
        blocks.append(InvertedResidual(channels, wide, outputs, kernel, stride, act, squeezed))
        channels = outputs
    head = [nn.Linear(576, 1024), nn.Hardswish(), nn.Linear(1024, classes)]
    last = ConvNormAct(channels, 576, act="hardswish")
    return nn.Sequential(*blocks, last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)


def efficientnet_lite0(classes: int = 1000) -> nn.Module:
    """(N, 3, H, W) → (N, classes): EfficientNet-B0 without excitation, with ReLU6."""
    blocks, channels = [ConvNormAct(3, 32, 3, 2, act="relu6")], 32
    for expansion, kernel, stride, outputs, repeats in LITE0:
        for i in range(repeats):
            step = stride if i == 0 else 1
            blocks.append(InvertedResidual(channels, channels * expansion, outputs, kernel, step, "relu6"))
            channels = outputs
    last = ConvNormAct(channels, 1280, act="relu6")
    return nn.Sequential(*blocks, last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, classes))


class Shuffle(nn.Module):
    """A unit of ShuffleNet-v2 (N. Ma et al., 2018): half of the channels pass by, then both halves are interleaved."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        half = outputs // 2
        self.stride, source = stride, inputs if stride == 2 else half
        self.main = nn.Sequential(
            ConvNormAct(source, half, act="relu"),
            ConvNormAct(half, half, 3, stride, half, "none"),
            ConvNormAct(half, half, act="relu"),
        )
        beside = [ConvNormAct(inputs, inputs, 3, 2, inputs, "none"), ConvNormAct(inputs, half, act="relu")]
        self.beside = nn.Sequential(*beside) if stride == 2 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, worked = (x, x) if self.stride == 2 else x.chunk(2, 1)
        joined = torch.cat((self.beside(kept), self.main(worked)), 1)
        n, c, h, w = joined.shape
        return joined.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet_v2(classes: int = 1000, widths=(24, 116, 232, 464, 1024)) -> nn.Module:
    """(N, 3, H, W) → (N, classes)."""
    blocks, channels = [ConvNormAct(3, widths[0], 3, 2, act="relu"), nn.MaxPool2d(3, 2, 1)], widths[0]
    for outputs, repeats in zip(widths[1:4], (4, 8, 4)):
        for i in range(repeats):
            blocks.append(Shuffle(channels, outputs, 2 if i == 0 else 1))
            channels = outputs
    last = ConvNormAct(channels, widths[4], act="relu")
    return nn.Sequential(*blocks, last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[4], classes))


def ds_cnn(classes: int = 12) -> nn.Module:
    """(N, 1, 49, 10) of spectral coefficients → (N, classes); MLPerf Tiny's keyword spotting."""
    blocks = [nn.Conv2d(1, 64, (10, 4), 2, (5, 1), bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(4):
        blocks += [ConvNormAct(64, 64, 3, 1, 64, "relu"), ConvNormAct(64, 64, act="relu")]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
