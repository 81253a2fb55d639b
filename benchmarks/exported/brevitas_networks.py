"""Networks at few bits, after Brevitas's examples and the QONNX model zoo: TFC, CNV, MobileNet-v1, RadioML's VGG10, the
MLPs of key words and of jets. Not trained; quantizers are set by random inputs."""

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


def radioml_vgg10(bits: int = 4, filters: int = 64, hidden: int = 128, samples: int = 1024) -> nn.Module:
    """(N, 2, samples) → (N, 24), a signal in phase and in quadrature to its kind of modulation: seven convolutions over
    time, each halved by a maximum, and two hidden layers."""
    options = dict(bias=False, weight_bit_width=bits, weight_quant=Int8WeightPerTensorFloat)
    layers, channels = [signed(8)], 2
    for _ in range(7):
        conv = qnn.QuantConv1d(channels, filters, 3, padding=1, **options)
        layers += [conv, nn.BatchNorm1d(filters), relu(bits), nn.MaxPool1d(2)]
        channels = filters
    size = filters * (samples >> 7)
    return nn.Sequential(*layers, nn.Flatten(), *_hidden(size, (hidden, hidden), bits), dense(hidden, 24, bits))


def kws_mlp(bits: int = 3, inputs: int = 490, hidden: int = 256) -> nn.Module:
    """(N, inputs) → (N, 12), of features of a second of sound to key words: three hidden layers."""
    return nn.Sequential(signed(8), *_hidden(inputs, (hidden,) * 3, bits), dense(hidden, 12, bits))


def jets(bits: int = 6) -> nn.Module:
    """(N, 16) → (N, 5), features of a jet of particles to what it comes from: hls4ml's three hidden layers."""
    return nn.Sequential(signed(8), *_hidden(16, (64, 32, 32), bits), dense(32, 5, bits))


def _hidden(inputs: int, sizes: tuple[int, ...], bits: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [dense(inputs, size, bits), nn.BatchNorm1d(size), relu(bits)]
        inputs = size
    return layers


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
