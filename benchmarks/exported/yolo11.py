"""YOLO11n: C3k2 blocks, attention over the deepest map (C2PSA, which stays in float), depthwise branches in its head."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.exported.blocks import ConvNormAct
from benchmarks.exported.yolo import SPPF, Bottleneck, Detect, Pyramid


class C3k(nn.Module):
    """Two bottlenecks beside a 1×1 convolution, and a concat of both."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.first, self.beside = ConvNormAct(channels, half), ConvNormAct(channels, half)
        self.blocks = nn.Sequential(Bottleneck(half, True), Bottleneck(half, True))
        self.last = ConvNormAct(2 * half, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat((self.blocks(self.first(x)), self.beside(x)), 1))


class C3k2(nn.Module):
    """A split, a block on its second half (C3k, if `deep`), and a concat of all three."""

    def __init__(self, inputs: int, outputs: int, deep: bool, expansion: float = 0.5):
        super().__init__()
        half = int(outputs * expansion)
        self.first, self.last = ConvNormAct(inputs, 2 * half), ConvNormAct(3 * half, outputs)
        self.block = C3k(half) if deep else Bottleneck(half, True, half // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, worked = self.first(x).chunk(2, 1)
        return self.last(torch.cat((kept, worked, self.block(worked)), 1))


class Attention(nn.Module):
    """Between all pixels of a map: keys of half a head's size, and a depthwise convolution that tells where a pixel is."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads, self.size = heads, channels // heads
        self.key = self.size // 2
        self.qkv = ConvNormAct(channels, channels + 2 * self.key * heads, act="none")
        self.place = ConvNormAct(channels, channels, 3, 1, channels, "none")
        self.project = ConvNormAct(channels, channels, act="none")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        qkv = self.qkv(x).view(n, self.heads, 2 * self.key + self.size, h * w)
        q, k, v = qkv.split((self.key, self.key, self.size), 2)
        weights = ((q.transpose(-2, -1) @ k) * self.key**-0.5).softmax(-1)
        mixed = (v @ weights.transpose(-2, -1)).view(n, c, h, w)
        return self.project(mixed + self.place(v.reshape(n, c, h, w)))


class C2PSA(nn.Module):
    """Attention and two convolutions, each with a skip, on one half of the channels."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.first, self.last = ConvNormAct(channels, channels), ConvNormAct(channels, channels)
        self.attention = Attention(half, max(1, half // 64))
        self.after = nn.Sequential(ConvNormAct(half, 2 * half), ConvNormAct(2 * half, half, act="none"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, worked = self.first(x).chunk(2, 1)
        worked = worked + self.attention(worked)
        return self.last(torch.cat((kept, worked + self.after(worked)), 1))


class SeparableDetect(Detect):
    """Its class scores are found by depthwise and pointwise convolutions."""

    def _scores(self, inputs: int, inner: int, outputs: int) -> nn.Sequential:
        first = [ConvNormAct(inputs, inputs, 3, 1, inputs), ConvNormAct(inputs, inner)]
        second = [ConvNormAct(inner, inner, 3, 1, inner), ConvNormAct(inner, inner)]
        return nn.Sequential(*first, *second, nn.Conv2d(inner, outputs, 1))


class Yolo11(Pyramid):
    """(N, 3, size, size) → (N, 84, anchors). `widths`: of the five stages; 11n's unless told."""

    def __init__(self, size: int = 640, widths=(16, 32, 64, 128, 256), classes: int = 80):
        super().__init__()
        a, b, c, d, e = widths
        self.stem = nn.Sequential(ConvNormAct(3, a, 3, 2), ConvNormAct(a, b, 3, 2), C3k2(b, c, False, 0.25))
        self.third = nn.Sequential(ConvNormAct(c, c, 3, 2), C3k2(c, d, False, 0.25))
        self.fourth = nn.Sequential(ConvNormAct(d, d, 3, 2), C3k2(d, d, True))
        self.fifth = nn.Sequential(ConvNormAct(d, e, 3, 2), C3k2(e, e, True), SPPF(e), C2PSA(e))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_4, self.top_3 = C3k2(d + e, d, False), C3k2(d + d, c, False)
        self.down_3, self.bottom_4 = ConvNormAct(c, c, 3, 2), C3k2(c + d, d, False)
        self.down_4, self.bottom_5 = ConvNormAct(d, d, 3, 2), C3k2(d + e, e, True)
        self.head = SeparableDetect((c, d, e), classes, size)
