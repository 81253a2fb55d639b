"""SqueezeNet 1.1 (F. Iandola et al., 2016): squeezes to few channels, expands by 1×1 and 3×3 beside each other."""

from __future__ import annotations

import torch
from torch import nn


class Fire(nn.Module):
    """(N, inputs, H, W) → (N, 8 · squeezed, H, W)."""

    def __init__(self, inputs: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, 4 * squeezed, 1), nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat((torch.relu(self.one(x)), torch.relu(self.three(x))), 1)


def squeezenet(classes: int = 1000) -> nn.Module:
    """(N, 3, H, W) → (N, classes)."""
    blocks: list[nn.Module] = [nn.Conv2d(3, 64, 3, 2), nn.ReLU()]
    channels = 64
    for i, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        if i in (0, 2, 4):
            blocks.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        blocks.append(Fire(channels, squeezed))
        channels = 8 * squeezed
    return nn.Sequential(*blocks, nn.Conv2d(512, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
