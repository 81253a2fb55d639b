"""TFC, CNV and MobileNet-v1 at few bits, after Brevitas's examples: not trained, quantizers set by random pictures."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import brevitas.nn as qnn
import torch
from brevitas.export import export_onnx_qcdq
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from torch import nn

OPSET = 17
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
"""Of MobileNet-v1's pairs: outputs, stride."""


def signed(bits: int) -> nn.Module:
    return qnn.QuantIdentity(bit_width=bits, act_quant=Int8ActPerTensorFloat, return_quant_tensor=True)


def relu(bits: int) -> nn.Module:
    return qnn.QuantReLU(bit_width=bits, act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)


def dense(inputs: int, outputs: int, bits: int) -> nn.Module:
    options = dict(weight_bit_width=bits, weight_quant=Int8WeightPerTensorFloat)
    return qnn.QuantLinear(inputs, outputs, bias=False, **options)


def conv(inputs: int, outputs: int, kernel: int, bits: int, **options) -> nn.Module:
    options |= dict(weight_bit_width=bits, weight_quant=Int8WeightPerChannelFloat)
    return qnn.QuantConv2d(inputs, outputs, kernel, bias=False, **options)


def tfc(bits: int = 2, classes: int = 10) -> nn.Module:
    """(N, 1, 28, 28) → (N, classes): three hidden layers of 64."""
    layers, size = [nn.Flatten(), signed(bits)], 28 * 28
    for _ in range(3):
        layers += [dense(size, 64, bits), nn.BatchNorm1d(64), signed(bits)]
        size = 64
    return nn.Sequential(*layers, dense(size, classes, bits))


def cnv(bits: int = 2, classes: int = 10) -> nn.Module:
    """(N, 3, 32, 32) → (N, classes): six convolutions without padding, in the manner of VGG, and two hidden layers."""
    layers, channels = [signed(8)], 3
    for outputs, pooled in ((64, False), (64, True), (128, False), (128, True), (256, False), (256, False)):
        layers += [conv(channels, outputs, 3, bits), nn.BatchNorm2d(outputs), signed(bits)]
        layers += [nn.MaxPool2d(2)] if pooled else []
        channels = outputs
    layers.append(nn.Flatten())
    for inputs in (256, 512):
        layers += [dense(inputs, 512, bits), nn.BatchNorm1d(512), signed(bits)]
    return nn.Sequential(*layers, dense(512, classes, bits))


def mobilenet_v1(bits: int = 4, classes: int = 1000) -> nn.Module:
    """(N, 3, H, W) → (N, classes); 8 bits in the first convolution and the last layer."""
    layers, channels = [signed(8), conv(3, 32, 3, 8, stride=2, padding=1), nn.BatchNorm2d(32), relu(bits)], 32
    for outputs, stride in V1:
        depthwise = conv(channels, channels, 3, bits, stride=stride, padding=1, groups=channels)
        layers += [depthwise, nn.BatchNorm2d(channels), relu(bits)]
        layers += [conv(channels, outputs, 1, bits), nn.BatchNorm2d(outputs), relu(bits)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), signed(8), dense(channels, classes, 8))


def write_qcdq(make: Callable[[], nn.Module], path: Path, shape: tuple[int, ...], seed: int = 0) -> Path:
    """The network as Brevitas's QCDQ exporter writes it, which ONNX Runtime runs; scales and statistics from pictures."""
    torch.manual_seed(seed)
    network = make()
    network.train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(8, *shape))
    network.eval()
    options = dict(opset_version=OPSET, dynamo=False, input_names=["x"], output_names=["y"])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        export_onnx_qcdq(network, input_t=torch.zeros(1, *shape), export_path=str(path), **options)
    return path
