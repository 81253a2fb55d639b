"""DeiT-tiny (H. Touvron et al., 2021): patches of a picture, twelve blocks of attention, as timm writes them."""

from __future__ import annotations

import torch
from torch import nn


class Attention(nn.Module):
    """Heads split off by a transpose that puts 3 in front of the batch."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
        return self.project((weights @ v).transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    """Attention and a perceptron of one hidden layer, each behind a LayerNorm and with a skip."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.first, self.second = nn.LayerNorm(channels, 1e-6), nn.LayerNorm(channels, 1e-6)
        self.attention = Attention(channels, heads)
        self.perceptron = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.first(x))
        return x + self.perceptron(self.second(x))


class Deit(nn.Module):
    """(N, 3, size, size) → (N, classes)."""

    def __init__(self, size: int = 224, channels: int = 192, depth: int = 12, heads: int = 3, classes: int = 1000):
        super().__init__()
        self.patches = nn.Conv2d(3, channels, 16, 16)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, channels))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + (size // 16) ** 2, channels))
        self.blocks = nn.Sequential(*(Block(channels, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(channels, 1e-6), nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])
