"""The small networks that every exporter is given: seeded, with statistics that no threshold is trivial for."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

IMAGE = (3, 16, 16)
SAMPLES, CALIBRATED_ON = 4, 16


def pictures(count: int, shape: tuple[int, ...] = IMAGE, seed: int = 1) -> np.ndarray:
    """float32 [count, *shape]."""
    return np.random.default_rng(seed).standard_normal((count, *shape), np.float32)


class Unit(nn.Sequential):
    """Convolution, BatchNorm, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act=nn.ReLU):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), act())


class Plain(nn.Module):
    """What every quantizer knows: plain, depthwise and grouped convolutions, pooling, a skip, a concat, a last layer."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool = Unit(3, 12), nn.MaxPool2d(2)
        self.body = nn.Sequential(Unit(12, 12, 3, 1, 12, nn.ReLU6), Unit(12, 12, 1, act=nn.Identity))
        self.side, self.joined = Unit(12, 6, 1), Unit(18, 20, 3, 2, 2)
        self.mean, self.last = nn.AdaptiveAvgPool2d(1), nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.stem(x))
        x = torch.relu(x + self.body(x))
        x = self.joined(torch.cat((x, self.side(x)), 1))
        return self.last(torch.flatten(self.mean(x), 1))


class Modern(nn.Module):
    """SiLU, HardSwish, squeeze and excitation, a split, upsampling."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = Unit(3, 16, act=nn.SiLU), Unit(16, 16, 3, 2, act=nn.Hardswish)
        self.reduce, self.expand = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 16, 1)
        self.up, self.inner = nn.Upsample(scale_factor=2, mode="nearest"), Unit(8, 8, act=nn.SiLU)
        self.last = nn.Conv2d(24, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        low = self.down(x)
        low = low * torch.sigmoid(self.expand(torch.relu(self.reduce(low.mean((2, 3), keepdim=True)))))
        kept, worked = self.up(low).chunk(2, 1)
        return self.last(torch.cat((kept, self.inner(worked), x[:, :8]), 1))


class Perceptron(nn.Sequential):
    def __init__(self):
        first = [nn.Flatten(), nn.Linear(48, 30), nn.BatchNorm1d(30), nn.ReLU()]
        super().__init__(*first, nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))


SHAPES = {Plain: IMAGE, Modern: IMAGE, Perceptron: (3, 4, 4)}


def built(kind: type[nn.Module]) -> nn.Module:
    """In evaluation mode, its BatchNorms with statistics of pictures, a quarter of their factors negative."""
    torch.manual_seed(sum(map(ord, kind.__name__)))
    torch.set_num_threads(1)
    module = kind()
    norms = [m for m in module.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    module.train()
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None
            norm.weight.copy_(
                (0.5 + torch.rand(norm.num_features)) * torch.where(torch.rand(norm.num_features) < 0.25, -1, 1)
            )
            norm.bias.copy_(0.4 * torch.randn(norm.num_features))
        module(torch.from_numpy(pictures(32, SHAPES[kind], 2)))
    return module.eval()


def float_file(kind: type[nn.Module], path, opset: int = 17):
    """The network as torch.onnx writes it; its path."""
    export(built(kind), path, SHAPES[kind], opset)
    return path


def export(
    module: nn.Module, path, shape: tuple[int, ...], opset: int = 17, dynamo: bool = False, batch: int = 1
) -> None:
    """By torch.onnx; x to y."""
    names = dict(input_names=["x"], output_names=["y"])
    x = torch.zeros(batch, *shape)
    with torch.no_grad():
        torch.onnx.export(module, (x,), str(path), opset_version=opset, dynamo=dynamo, **names)
