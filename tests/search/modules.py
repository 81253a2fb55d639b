"""Untouched modules of the shapes that users bring, small: written as torchvision and its like write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    def __init__(self, i: int, o: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or i != o:
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10, width: int = 16):
        super().__init__()
        self.conv1, self.bn1, self.relu = (
            nn.Conv2d(channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(BasicBlock(width, width), BasicBlock(width, 2 * width, 2))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(torch.flatten(self.avgpool(self.layer1(x)), 1))


class PreActivation(nn.Module):
    """Control flow by shapes, a module that is called twice, functions in place of modules."""

    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.stem = nn.Conv2d(channels, 16, 3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(16, 16, 3, 1, 1, bias=False) for _ in range(2))
        self.shared = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] < 4:
            raise ValueError(f"an image of {x.shape[-1]} pixels is too small")
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms):
            x = x + conv(F.relu(norm(x)))
        x = self.shared(F.relu(self.shared(x)))
        return self.head(F.relu(self.norms[2](x)).mean((2, 3)))


def _conv_bn(i: int, o: int, kernel: int, stride: int, groups: int = 1, act: type[nn.Module] | None = nn.ReLU6):
    layers = [nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act(inplace=True)] if act else []))


class InvertedResidual(nn.Module):
    def __init__(self, i: int, o: int, stride: int, expand: int):
        super().__init__()
        hidden = i * expand
        self.use_res_connect = stride == 1 and i == o
        self.conv = nn.Sequential(
            _conv_bn(i, hidden, 1, 1), _conv_bn(hidden, hidden, 3, stride, hidden), _conv_bn(hidden, o, 1, 1, act=None)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.features = nn.Sequential(
            _conv_bn(channels, 8, 3, 2),
            InvertedResidual(8, 16, 2, 2),
            InvertedResidual(16, 16, 1, 2),
            _conv_bn(16, 32, 1, 1),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), (1, 1)).flatten(1))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.hardsigmoid(self.fc2(F.relu(self.fc1(self.avgpool(x))))) * x


class MobileNetV3(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.stem = _conv_bn(channels, 8, 3, 2, act=nn.Hardswish)
        self.expand = _conv_bn(8, 16, 1, 1, act=nn.Hardswish)
        self.depthwise = _conv_bn(16, 16, 5, 1, 16, act=nn.Hardswish)
        self.se = SqueezeExcitation(16, 8)
        self.project = _conv_bn(16, 8, 1, 1, act=None)
        self.head = nn.Sequential(nn.Linear(8, 32), nn.Hardswish(), nn.Dropout(0.1), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(self.se(self.depthwise(self.expand(x))))
        return self.head(x.mean((2, 3)))


class Inception(nn.Module):
    """GoogLeNet's block."""

    def __init__(self, i: int):
        super().__init__()
        basic = lambda a, b, k: nn.Sequential(
            nn.Conv2d(a, b, k, padding=k // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()
        )
        self.branch1 = basic(i, 8, 1)
        self.branch2 = nn.Sequential(basic(i, 8, 1), basic(8, 16, 3))
        self.branch3 = nn.Sequential(nn.MaxPool2d(3, 1, 1), basic(i, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.inception1, self.inception2 = Inception(16), Inception(32)
        self.fc = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inception2(self.inception1(self.conv(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ShuffleUnit(nn.Module):
    """ShuffleNet-v2's: half of the channels goes through, then all are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            _conv_bn(half, half, 1, 1, act=nn.ReLU),
            _conv_bn(half, half, 3, 1, half, act=None),
            _conv_bn(half, half, 1, 1, act=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleNet(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10):
        super().__init__()
        self.stem = _conv_bn(channels, 16, 3, 2, act=nn.ReLU)
        self.units = nn.Sequential(ShuffleUnit(16), ShuffleUnit(16))
        self.last = nn.Conv2d(16, 16, 1, groups=2)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.silu(self.last(self.units(self.stem(x)))).mean([2, 3]))


class Audio(nn.Module):
    """Conv1d over samples."""

    def __init__(self, channels: int = 1, classes: int = 6):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(channels, 16, 16, 4, bias=False),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.MaxPool1d(4),
            nn.Conv1d(16, 24, 3, padding=1, bias=False),
            nn.BatchNorm1d(24),
            nn.ReLU(),
        )
        self.fc = nn.Linear(24, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(2))


class MLP(nn.Sequential):
    def __init__(self, features: int = 20, classes: int = 5):
        super().__init__(
            nn.Linear(features, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 24), nn.SiLU(), nn.Linear(24, classes)
        )


class Encoder(nn.Module):
    """A transformer's, as timm writes it."""

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        attention = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        x = x + self.proj((attention @ v).transpose(1, 2).reshape(n, t, c))
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class DeiT(nn.Module):
    def __init__(self, channels: int = 3, classes: int = 10, width: int = 16):
        super().__init__()
        self.patches, self.token = nn.Conv2d(channels, width, 4, 4), nn.Parameter(0.1 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.1 * torch.randn(1, 17, width))
        self.block, self.norm, self.head = Encoder(width), nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.norm(self.block(x))[:, 0])


MODULES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "resnet": (ResNet, (3, 32, 32)),
    "preactivation": (PreActivation, (3, 12, 12)),
    "mobilenet-v2": (MobileNetV2, (3, 24, 24)),
    "mobilenet-v3": (MobileNetV3, (3, 16, 16)),
    "googlenet": (GoogLeNet, (3, 16, 16)),
    "shufflenet": (ShuffleNet, (3, 16, 16)),
    "audio": (Audio, (1, 400)),
    "mlp": (MLP, (20,)),
    "deit": (DeiT, (3, 16, 16)),
}
"""Name → the module and the shape of a sample of it."""


def module(name: str, seed: int = 0) -> tuple[nn.Module, Tensor]:
    """One of MODULES with statistics as if it were trained, in evaluation mode, and a batch of samples of both signs."""
    kind, shape = MODULES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = kind()
        for m in made.modules():
            if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
                m.running_mean.uniform_(-0.2, 0.2), m.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                m.weight.data.uniform_(0.5, 1.5), m.bias.data.uniform_(-0.3, 0.3)
        return made.eval(), torch.randn(8, *shape)
