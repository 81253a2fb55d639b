"""A face detector of the shape of UltraFace's RFB-320: depthwise convolutions, a block of dilated ones, four scales."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.exported.blocks import ConvNormAct

BOXES = (3, 2, 2, 3)
"""Around each pixel of the four maps."""


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(inputs, inputs, 3, stride, inputs, "relu"), ConvNormAct(inputs, outputs, act="relu")
    )


def head(inputs: int, outputs: int) -> nn.Sequential:
    """A depthwise convolution with a bias, and a pointwise one."""
    return nn.Sequential(nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1))


class Receptive(nn.Module):
    """Three branches that see 2, 3 and 5 pixels far, a concat, and a skip (S. Liu et al., 2018)."""

    def __init__(self, channels: int):
        super().__init__()
        inner = channels // 8
        self.branches = nn.ModuleList()
        for far in (2, 3, 5):
            wide = inner * 3 // 2 if far == 5 else 2 * inner
            steps = [ConvNormAct(inner, wide, 3, act="relu")]
            steps += [ConvNormAct(wide, 2 * inner, 3, act="relu")] if far == 5 else []
            last = nn.Conv2d(2 * inner, 2 * inner, 3, 1, far, far, bias=False), nn.BatchNorm2d(2 * inner)
            self.branches.append(nn.Sequential(ConvNormAct(channels, inner, act="none"), *steps, *last))
        self.joined, self.skip = (
            ConvNormAct(6 * inner, channels, act="none"),
            ConvNormAct(channels, channels, act="none"),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = self.joined(torch.cat([branch(x) for branch in self.branches], 1))
        return torch.relu(0.1 * joined + self.skip(x))


class UltraFace(nn.Module):
    """(N, 3, H, W) → (N, boxes, 6): scores of background and face, and where the box lies beside its prior."""

    def __init__(self):
        super().__init__()
        first = [ConvNormAct(3, 16, 3, 2, act="relu"), separable(16, 32), separable(32, 32, 2), separable(32, 32)]
        middle = [separable(32, 64, 2), separable(64, 64), separable(64, 64), Receptive(64)]
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*first, *middle),
                nn.Sequential(separable(64, 128, 2), separable(128, 128), separable(128, 128)),
                nn.Sequential(separable(128, 256, 2), separable(256, 256)),
                nn.Sequential(ConvNormAct(256, 64, act="relu"), separable(64, 256, 2)),
            ]
        )
        sizes = (64, 128, 256, 256)
        self.scores = nn.ModuleList(head(c, 2 * n) for c, n in zip(sizes[:3], BOXES))
        self.scores.append(nn.Conv2d(256, 2 * BOXES[3], 3, 1, 1))
        self.places = nn.ModuleList(head(c, 4 * n) for c, n in zip(sizes[:3], BOXES))
        self.places.append(nn.Conv2d(256, 4 * BOXES[3], 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores, places = [], []
        for stage, score, place in zip(self.stages, self.scores, self.places):
            x = stage(x)
            scores.append(score(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 2))
            places.append(place(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
        return torch.cat((torch.cat(scores, 1).softmax(2), torch.cat(places, 1)), 2)
