"""Small float networks of several shapes, exported by torch.onnx: seeded, untrained, their BatchNorms have seen data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn


class Residual(nn.Module):
    """ResNet-ish: a stem with a max pool, a plain block, one with a downsample convolution."""

    shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.a, self.b = conv(8, 8, 3), conv(8, 8, 3)
        self.c, self.d, self.down = conv(8, 12, 3, stride=2), conv(12, 12, 3), conv(8, 12, 1, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.b(torch.relu(self.a(x))) + x)
        x = torch.relu(self.d(torch.relu(self.c(x))) + self.down(x))
        return self.head(x.mean((2, 3)))


class Mobile(nn.Module):
    """MobileNet-ish: inverted residuals with ReLU6 and with HardSwish, squeeze and excitation, SiLU."""

    shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 3, stride=2), nn.Hardswish())
        self.one = nn.Sequential(conv(8, 16, 1), nn.ReLU6(), conv(16, 16, 3, groups=16), nn.ReLU6(), conv(16, 8, 1))
        self.expand = nn.Sequential(conv(8, 16, 1), nn.Hardswish(), conv(16, 16, 5, groups=16), nn.Hardswish())
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid()
        )
        self.project = conv(16, 12, 1)
        self.last = nn.Sequential(conv(12, 24, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))

    def forward(self, x):
        x = self.stem(x)
        x = self.one(x) + x
        x = self.expand(x)
        return self.last(self.project(self.squeeze(x) * x))


class Sound(nn.Module):
    """1-D, with strides and a dilated convolution."""

    shape = (2, 64)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(2, 8, 5, stride=2, padding=2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2),
            nn.BatchNorm1d(8),
            nn.LeakyReLU(0.1),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 12, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 14, 5),
        )

    def forward(self, x):
        return self.layers(x)


class Branches(nn.Module):
    """GoogLeNet-ish: branches joined by a concat, which a convolution and a pooled branch read."""

    shape = (3, 12, 12)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv(3, 8, 3), nn.ReLU())
        self.a, self.b = nn.Sequential(conv(8, 6, 1), nn.ReLU()), nn.Sequential(conv(8, 6, 3), nn.Tanh())
        self.c, self.d = nn.Sequential(conv(12, 8, 3), nn.ReLU()), nn.Sequential(conv(12, 8, 1), nn.ReLU())
        self.pool, self.head = nn.MaxPool2d(3, 1, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.cat([self.a(x), self.b(x)], 1)
        x = torch.cat([self.c(x), self.d(self.pool(x))], 1)
        return self.head(x.mean((2, 3)))


class Up(nn.Module):
    """U-Net-ish: down by a pool, up by transposed convolutions, one of them in groups and cut off at its borders, beside a
    skip."""

    shape = (3, 12, 12)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Sequential(conv(3, 8, 3), nn.ReLU()), nn.Sequential(conv(8, 12, 3), nn.ReLU())
        self.up, self.c = nn.ConvTranspose2d(12, 8, 2, stride=2), nn.Sequential(conv(16, 8, 3), nn.ReLU())
        self.more = nn.ConvTranspose2d(8, 6, 4, stride=2, padding=1, groups=2, bias=False)
        self.last = nn.Conv2d(6, 5, 1)

    def forward(self, x):
        x = self.a(x)
        y = self.up(self.b(torch.max_pool2d(x, 2)))
        return self.last(torch.relu(self.more(self.c(torch.cat([x, torch.relu(y)], 1)))))


class Perceptron(nn.Module):
    shape = (20,)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24), nn.GELU(), nn.Linear(24, 5))

    def forward(self, x):
        return self.layers(x)


NETS = {kind.__name__.lower(): kind for kind in (Residual, Mobile, Sound, Branches, Up, Perceptron)}


def conv(i: int, o: int, k: int, **more) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False, **more), nn.BatchNorm2d(o))


def made(name: str, seed: int = 0) -> nn.Module:
    """In eval mode; its BatchNorms have means and variances of something, not 0 and 1."""
    torch.manual_seed(seed)
    net = NETS[name]()
    net.train()
    with torch.no_grad():
        for _ in range(4):
            net(2 * torch.randn(16, *net.shape) + 0.3)
    return net.eval()


def samples(name: str, count: int = 32, seed: int = 1) -> np.ndarray:
    shape = NETS[name].shape
    return (2 * np.random.default_rng(seed).standard_normal((count, *shape)) + 0.3).astype(np.float32)


def export(net: nn.Module, path: Path, *, dynamo: bool = False, free_batch: bool = True, opset: int = 17) -> Path:
    x = torch.zeros(1, *net.shape)
    names = dict(input_names=["x"], output_names=["y"])
    if dynamo:
        axes = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if free_batch else {}
        torch.onnx.export(net, (x,), str(path), dynamo=True, verbose=False, **names, **axes)
    else:
        axes = {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}} if free_batch else {}
        torch.onnx.export(net, (x,), str(path), dynamo=False, opset_version=opset, **names, **axes)
    return path
