"""Blocks that several networks share: convolution, BatchNorm, activation; squeeze and excitation."""

from __future__ import annotations

import torch
from torch import nn

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "relu6": nn.ReLU6, "hardswish": nn.Hardswish, "none": nn.Identity}


class ConvNormAct(nn.Sequential):
    """(N, inputs, H, W) → (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "silu"):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), ACTIVATIONS[act]())


class SqueezeExcite(nn.Module):
    """Each channel times a number between 0 and 1 (J. Hu et al., 2018), with MobileNet-v3's hard sigmoid."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * nn.functional.hardsigmoid(self.expand(scale))


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze and excite if `squeezed`, project; a skip where shapes allow (MobileNet-v2, v3,
    EfficientNet)."""

    def __init__(self, inputs: int, wide: int, outputs: int, kernel: int, stride: int, act: str, squeezed: int = 0):
        super().__init__()
        expand = [ConvNormAct(inputs, wide, act=act)] if wide != inputs else []
        depthwise = ConvNormAct(wide, wide, kernel, stride, wide, act)
        excite = [SqueezeExcite(wide, squeezed)] if squeezed else []
        self.body = nn.Sequential(*expand, depthwise, *excite, ConvNormAct(wide, outputs, act="none"))
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.skip else self.body(x)
