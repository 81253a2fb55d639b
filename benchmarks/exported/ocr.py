"""Shapes of PP-OCR: a MobileNet-v3 with a feature pyramid that finds text, and a recogniser of lines of text."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.exported.blocks import ConvNormAct, InvertedResidual, SqueezeExcite

STAGES = (  # kernel, wide, outputs, activation, stride: MobileNet-v3-large, half as wide
    ((3, 8, 8, "relu", 1), (3, 32, 16, "relu", 2), (3, 40, 16, "relu", 1)),
    ((5, 40, 24, "relu", 2), (5, 64, 24, "relu", 1), (5, 64, 24, "relu", 1)),
    ((3, 120, 40, "hardswish", 2), (3, 104, 40, "hardswish", 1), (3, 240, 56, "hardswish", 1)),
    ((5, 336, 80, "hardswish", 2), (5, 480, 80, "hardswish", 1)),
)


class TextDetector(nn.Module):
    """(N, 3, H, W) → (N, 1, H, W): how likely each pixel is of text (M. Liao et al., 2020)."""

    def __init__(self, inner: int = 96):
        super().__init__()
        self.stem, channels = ConvNormAct(3, 8, 3, 2, act="hardswish"), 8
        self.stages, self.sides, self.smooth = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for rows in STAGES:
            blocks = []
            for kernel, wide, outputs, act, stride in rows:
                blocks.append(InvertedResidual(channels, wide, outputs, kernel, stride, act))
                channels = outputs
            self.stages.append(nn.Sequential(*blocks))
            side = nn.Conv2d(channels, inner, 1, bias=False), SqueezeExcite(inner, inner // 4)
            self.sides.append(nn.Sequential(*side))
            smooth = nn.Conv2d(inner, inner // 4, 3, 1, 1, bias=False), SqueezeExcite(inner // 4, inner // 16)
            self.smooth.append(nn.Sequential(*smooth))
        quarter = inner // 4
        self.head = nn.Sequential(
            ConvNormAct(inner, quarter, 3, act="relu"),
            *(nn.ConvTranspose2d(quarter, quarter, 2, 2), nn.BatchNorm2d(quarter), nn.ReLU()),
            nn.ConvTranspose2d(quarter, 1, 2, 2),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, maps = self.stem(x), []
        for stage, side in zip(self.stages, self.sides):
            x = stage(x)
            maps.append(side(x))
        grown = lambda t, factor: nn.functional.interpolate(t, scale_factor=factor, mode="nearest")
        for i in (2, 1, 0):
            maps[i] = maps[i] + grown(maps[i + 1], 2)
        smooth = [s(m) for s, m in zip(self.smooth, maps)]
        return self.head(torch.cat([grown(m, 2**i) if i else m for i, m in enumerate(smooth)][::-1], 1))


class Mixing(nn.Module):
    """Attention between the columns of a line, and a perceptron (SVTR; Y. Du et al., 2022)."""

    def __init__(self, channels: int, heads: int = 8):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(channels, 1e-5), nn.LayerNorm(channels, 1e-5)
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.first(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = (qkv[0] * (c // self.heads) ** -0.5 @ qkv[1].transpose(-2, -1)).softmax(-1)
        x = x + self.project((weights @ qkv[2]).transpose(1, 2).reshape(n, t, c))
        return x + self.perceptron(self.second(x))


class TextRecogniser(nn.Module):
    """(N, 3, 48, W) → (N, W / 8, letters): the likelihood of each letter in each column. Convolutions that keep the width,
    then two blocks of attention between columns, where PP-OCR before version 3 had a recurrent layer."""

    def __init__(self, letters: int = 97):
        super().__init__()
        rows = ((16, 32, 3, 1, 1), (32, 64, 3, (2, 1), 1), (64, 64, 3, 1, 1), (64, 128, 3, (2, 1), 1))
        rows += ((128, 128, 5, 1, 1), (128, 256, 5, (2, 1), 4), (256, 256, 5, (2, 1), 4))
        blocks: list[nn.Module] = [ConvNormAct(3, 16, 3, 2, act="hardswish")]
        for inputs, outputs, kernel, stride, squeezed in rows:
            blocks.append(ConvNormAct(inputs, inputs, kernel, stride, inputs, "hardswish"))
            blocks += [SqueezeExcite(inputs, inputs // 4)] if squeezed > 1 else []
            blocks.append(ConvNormAct(inputs, outputs, act="hardswish"))
        self.body, self.pool = nn.Sequential(*blocks), nn.AvgPool2d((1, 4), (1, 4))
        self.narrow = ConvNormAct(256, 120, act="silu")
        self.mixing, self.norm = nn.Sequential(Mixing(120), Mixing(120)), nn.LayerNorm(120, 1e-6)
        self.last = nn.Linear(120, letters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow(self.pool(self.body(x)))
        x = self.norm(self.mixing(x.mean(2).transpose(1, 2)))
        return self.last(x).softmax(2)
