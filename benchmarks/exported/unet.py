"""A U-Net for segmentation: transposed convolutions are replaced by upsampling, as deployed ones have it."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.exported.blocks import ConvNormAct


class UNet(nn.Module):
    """(N, 3, H, W) → (N, classes, H, W) (O. Ronneberger et al., 2015)."""

    def __init__(self, widths=(16, 32, 64, 128), classes: int = 4):
        super().__init__()
        sizes = [3, *widths]
        self.down = nn.ModuleList(self._stage(i, o) for i, o in zip(sizes, widths))
        self.up = nn.ModuleList(self._stage(i + o, o) for i, o in zip(widths[:0:-1], widths[-2::-1]))
        self.pool, self.grow = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")
        self.last = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def _stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(ConvNormAct(inputs, outputs, 3, act="relu"), ConvNormAct(outputs, outputs, 3, act="relu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i, stage in enumerate(self.down):
            x = stage(self.pool(x) if i else x)
            skips.append(x)
        for stage, skip in zip(self.up, skips[-2::-1]):
            x = stage(torch.cat((self.grow(x), skip), 1))
        return self.last(x)
