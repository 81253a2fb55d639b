"""YOLOv8n: backbone, neck and head of the detector as ultralytics exports it, boxes decoded in the graph (80 classes)."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.exported.blocks import ConvNormAct

BINS = 16
"""Of the distribution of each box side."""


class Bottleneck(nn.Module):
    def __init__(self, channels: int, skip: bool, inner: int = 0):
        super().__init__()
        inner = inner or channels
        self.body = nn.Sequential(ConvNormAct(channels, inner, 3), ConvNormAct(inner, channels, 3))
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.skip else self.body(x)


class C2f(nn.Module):
    """A split, bottlenecks one after another on its second half, and a concat of all that came by."""

    def __init__(self, inputs: int, outputs: int, depth: int, skip: bool):
        super().__init__()
        half = outputs // 2
        self.first = ConvNormAct(inputs, outputs)
        self.blocks = nn.ModuleList(Bottleneck(half, skip) for _ in range(depth))
        self.last = ConvNormAct((2 + depth) * half, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Three maxima over 5×5, one after another, and a concat."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.last = ConvNormAct(channels, channels // 2), ConvNormAct(channels * 2, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detect(nn.Module):
    """Boxes (x, y, w, h in pixels) and class scores: [N, 4 + classes, anchors]."""

    def __init__(self, channels: tuple[int, ...], classes: int, size: int):
        super().__init__()
        self.classes = classes
        box, score = max(16, channels[0] // 4, BINS * 4), max(channels[0], min(classes, 100))
        self.boxes = nn.ModuleList(self._branch(c, box, 4 * BINS) for c in channels)
        self.scores = nn.ModuleList(self._scores(c, score, classes) for c in channels)
        centres, strides = [], []
        for stride in (8, 16, 32):
            n = size // stride
            y, x = torch.meshgrid(torch.arange(n) + 0.5, torch.arange(n) + 0.5, indexing="ij")
            centres.append(torch.stack((x.flatten(), y.flatten())))
            strides.append(torch.full((1, n * n), float(stride)))
        self.register_buffer("centres", torch.cat(centres, 1)[None])
        self.register_buffer("strides", torch.cat(strides, 1)[None])
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32).reshape(1, BINS, 1, 1))

    @staticmethod
    def _branch(inputs: int, inner: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(ConvNormAct(inputs, inner, 3), ConvNormAct(inner, inner, 3), nn.Conv2d(inner, outputs, 1))

    def _scores(self, inputs: int, inner: int, outputs: int) -> nn.Sequential:
        return self._branch(inputs, inner, outputs)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        joined = [torch.cat((b(m), s(m)), 1).flatten(2) for m, b, s in zip(maps, self.boxes, self.scores)]
        sides, scores = torch.cat(joined, 2).split((4 * BINS, self.classes), 1)
        sides = sides.reshape(1, 4, BINS, -1).transpose(1, 2).softmax(1)
        sides = nn.functional.conv2d(sides, self.bins).reshape(1, 4, -1)
        before, behind = sides.chunk(2, 1)
        first, last = self.centres - before, self.centres + behind
        boxes = torch.cat(((first + last) / 2, last - first), 1) * self.strides
        return torch.cat((boxes, scores.sigmoid()), 1)


class Pyramid(nn.Module):
    """Five stages; what the last three find goes up and down again, and to the head."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        four = self.top_4(torch.cat((self.up(fifth), fourth), 1))
        three = self.top_3(torch.cat((self.up(four), third), 1))
        four = self.bottom_4(torch.cat((self.down_3(three), four), 1))
        five = self.bottom_5(torch.cat((self.down_4(four), fifth), 1))
        return self.head([three, four, five])


class YoloV8(Pyramid):
    """(N, 3, size, size) → (N, 84, anchors). `widths`: of the five stages; v8n's unless told."""

    def __init__(self, size: int = 640, widths=(16, 32, 64, 128, 256), depths=(1, 2, 2, 1), classes: int = 80):
        super().__init__()
        a, b, c, d, e = widths
        self.stem = nn.Sequential(ConvNormAct(3, a, 3, 2), ConvNormAct(a, b, 3, 2), C2f(b, b, depths[0], True))
        self.third = nn.Sequential(ConvNormAct(b, c, 3, 2), C2f(c, c, depths[1], True))
        self.fourth = nn.Sequential(ConvNormAct(c, d, 3, 2), C2f(d, d, depths[2], True))
        self.fifth = nn.Sequential(ConvNormAct(d, e, 3, 2), C2f(e, e, depths[3], True), SPPF(e))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.top_4, self.top_3 = C2f(d + e, d, depths[0], False), C2f(c + d, c, depths[0], False)
        self.down_3, self.bottom_4 = ConvNormAct(c, c, 3, 2), C2f(c + d, d, depths[0], False)
        self.down_4, self.bottom_5 = ConvNormAct(d, d, 3, 2), C2f(d + e, e, depths[0], False)
        self.head = Detect((c, d, e), classes, size)
