"""Writes the models of this folder that Brevitas exports: `python -m tests.data.make_models [NAME …]`. hand_made.py
writes the others.

Networks are small and seeded. BatchNorm statistics and parameters are random (a quarter of the gammas negative), so
that no threshold is trivial; channel counts are seldom multiples of 8. The two that torch's dynamo exporter wrote lose
its stack traces. Each file comes with NAME.npz: `x` (4 samples) and `y`, what Brevitas computes for them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import onnx
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.inject.defaults import RoundTo8bit
from brevitas.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Int32Bias,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.shifted_scaled_int import ShiftedUint8ActPerTensorFloat, ShiftedUint8WeightPerTensorFloat
from torch import nn

from benchmarks.exported.brevitas_networks import jets, kws_mlp, radioml_vgg10

HERE = Path(__file__).parent
OPSET = 17


# -- layers ------------------------------------------------------------------------------------------------------------
def norm(channels: int, dims: int = 2) -> nn.Module:
    return random_statistics({1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims](channels)).eval()


def random_statistics(network: nn.Module) -> nn.Module:
    """Of all BatchNorms in it."""
    for bn in network.modules():
        if not isinstance(bn, nn.modules.batchnorm._BatchNorm):
            continue
        n = bn.num_features
        with torch.no_grad():
            bn.weight.copy_((0.5 + torch.rand(n)) * torch.where(torch.rand(n) < 0.25, -1.0, 1.0))
            bn.bias.copy_(0.4 * torch.randn(n))
            bn.running_mean.copy_(0.2 * torch.randn(n))
            bn.running_var.copy_(0.3 + torch.rand(n))
    return network


def relu(bits: int) -> nn.Module:
    return qnn.QuantReLU(bit_width=bits, act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True)


def signed(bits: int) -> nn.Module:
    return qnn.QuantIdentity(bit_width=bits, act_quant=Int8ActPerTensorFloat, return_quant_tensor=True)


def sign() -> nn.Module:
    return qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, scaling_init=1.0, return_quant_tensor=True)


def conv(i: int, o: int, k: int, bits: int, per_channel: bool = True, bias: bool = False, **options) -> nn.Module:
    return qnn.QuantConv2d(
        i,
        o,
        k,
        bias=bias,
        weight_bit_width=bits,
        padding=options.pop("padding", k // 2),
        weight_quant=Int8WeightPerChannelFloat if per_channel else Int8WeightPerTensorFloat,
        **options,
    )


def binary_conv(i: int, o: int, k: int, **options) -> nn.Module:
    return qnn.QuantConv2d(
        i, o, k, bias=False, padding=k // 2, weight_quant=SignedBinaryWeightPerTensorConst, scaling_init=0.25, **options
    )


def dense(i: int, o: int, bits: int, bias: bool = True, **options) -> nn.Module:
    return qnn.QuantLinear(i, o, bias=bias, weight_bit_width=bits, weight_quant=Int8WeightPerTensorFloat, **options)


# -- networks ----------------------------------------------------------------------------------------------------------
class Block(nn.Module):
    """Two 3×3 convolutions and a float skip, quantized after the add; where the shape changes a 1×1 convolution is in
    the skip."""

    def __init__(self, i: int, o: int, stride: int, wbits: int, abits: int):
        super().__init__()
        self.body = nn.Sequential(
            conv(i, o, 3, wbits, stride=stride), norm(o), relu(abits), conv(o, o, 3, wbits), norm(o)
        )
        self.down = (
            nn.Sequential(conv(i, o, 1, wbits, stride=stride), norm(o)) if stride > 1 or i != o else nn.Identity()
        )
        self.act = relu(abits)

    def forward(self, x):
        skip = self.down(x)
        return self.act(self.body(x) + getattr(skip, "value", skip))


class Residual(nn.Module):
    """W3A4 and W2A2 blocks between an 8-bit stem and head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(signed(8), conv(3, 12, 3, 8), norm(12), relu(4))
        self.blocks = nn.Sequential(Block(12, 12, 1, 3, 4), Block(12, 18, 2, 3, 4), Block(18, 22, 2, 2, 2))
        self.last, self.head = signed(8), dense(22, 10, 8)

    def forward(self, x):
        x = self.blocks(self.stem(x))
        return self.head(self.last(torch.flatten(nn.functional.adaptive_avg_pool2d(x.value, 1), 1)))


class QuantizedSkip(nn.Module):
    """Both branches of the add share one quantizer (Brevitas's QuantEltwiseAdd); the sum is quantized to 4 bits."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(signed(8), conv(3, 18, 3, 6), norm(18), relu(4))
        self.body = nn.Sequential(conv(18, 18, 3, 4), norm(18))
        self.add = qnn.QuantEltwiseAdd(
            input_quant=Int8ActPerTensorFloat, output_quant=Int8ActPerTensorFloat, input_bit_width=5, output_bit_width=4
        )
        self.tail = nn.Sequential(conv(18, 9, 3, 4, stride=2), norm(9), relu(8))

    def forward(self, x):
        x = self.stem(x)
        return self.tail(self.add(self.body(x), x)).value


class Concatenated(nn.Module):
    """A concat of two tensors with grids of their own in front of a convolution, and one with a shared grid."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(signed(8), conv(3, 16, 3, 4), norm(16), relu(4))
        self.left = nn.Sequential(conv(16, 12, 3, 2), norm(12), relu(2))
        self.right = nn.Sequential(conv(16, 20, 1, 3), norm(20), relu(4))
        self.mixed = nn.Sequential(conv(32, 24, 3, 3, stride=2), norm(24))
        self.shared = relu(3)
        self.side = nn.Sequential(conv(16, 8, 3, 4, stride=2), norm(8))
        self.tail = nn.Sequential(conv(32, 10, 1, 4), norm(10), nn.Flatten(2))

    def forward(self, x):
        x = self.stem(x)
        both = torch.cat([self.left(x).value, self.right(x).value], 1)
        y = torch.cat([self.shared(self.mixed(both)).value, self.shared(self.side(x)).value], 1)
        return self.tail(y).mean(-1)


def cnn_w1a1() -> nn.Module:
    """Bipolar weights and activations; 8-bit input, float result of a bipolar dense layer."""
    return nn.Sequential(
        signed(8),
        binary_conv(3, 24, 3),
        norm(24),
        sign(),
        binary_conv(24, 33, 3),
        nn.MaxPool2d(2),
        norm(33),
        sign(),
        binary_conv(33, 34, 3, stride=2),
        norm(34),
        sign(),
        nn.Flatten(),
        qnn.QuantLinear(34 * 16, 10, bias=False, weight_quant=SignedBinaryWeightPerTensorConst, scaling_init=0.1),
    )


def cnn_w2a2() -> nn.Module:
    """Max pooling on codes, a bias quantized to 32 bits, 5×5 with stride 2."""
    return nn.Sequential(
        signed(8),
        conv(1, 10, 5, 4, stride=2),
        norm(10),
        relu(2),
        conv(10, 20, 3, 2),
        nn.MaxPool2d(2),
        norm(20),
        relu(2),
        conv(20, 26, 3, 2, bias=True, bias_quant=Int32Bias),
        relu(2),
        nn.MaxPool2d(3, 2, 1),
        nn.Flatten(),
        dense(26 * 16, 10, 4),
    )


def ternary_w2a8() -> nn.Module:
    """Ternary weights, PReLU, HardTanh, asymmetric 8-bit activations (a zero point)."""
    ternary = dict(
        bias=False, padding=1, weight_quant=SignedTernaryWeightPerTensorConst, scaling_init=0.1, threshold=0.5
    )
    shifted = dict(act_quant=ShiftedUint8ActPerTensorFloat, return_quant_tensor=True)
    return nn.Sequential(
        qnn.QuantIdentity(**shifted),
        qnn.QuantConv2d(3, 16, 3, **ternary),
        norm(16),
        nn.PReLU(16),
        qnn.QuantIdentity(**shifted),
        qnn.QuantConv2d(16, 21, 3, stride=2, **ternary),
        norm(21),
        nn.Hardtanh(-1.5, 2.0),
        qnn.QuantIdentity(bit_width=5, **shifted),
        qnn.QuantConv2d(21, 13, 3, dilation=2, **ternary),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2, 2),
    )


def asymmetric_weights() -> nn.Module:
    """Unsigned 4-bit weights with a zero point, one scale per tensor."""
    weights = dict(weight_quant=ShiftedUint8WeightPerTensorFloat, weight_bit_width=4, bias=False)
    return nn.Sequential(
        signed(4), qnn.QuantConv2d(3, 12, 3, **weights), norm(12), relu(3), qnn.QuantConv2d(12, 7, 1, **weights)
    )


def separable() -> nn.Module:
    """Depthwise and pointwise convolutions, one scale a channel, ReLU6."""

    def pair(i, o, stride, bits):
        return [
            conv(i, i, 3, bits, stride=stride, groups=i),
            norm(i),
            nn.ReLU6(),
            relu(bits),
            conv(i, o, 1, bits),
            norm(o),
            relu(bits),
        ]

    return nn.Sequential(
        signed(8),
        conv(3, 14, 3, 8, stride=2),
        norm(14),
        relu(4),
        *pair(14, 28, 1, 4),
        *pair(28, 40, 2, 4),
        conv(40, 20, 3, 3, groups=2),
        norm(20),
        relu(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        signed(8),
        dense(20, 10, 8, bias_quant=Int32Bias),
    )


def keywords() -> nn.Module:
    """Convolutions over a sequence of 24 features, as in keyword spotting."""

    def conv1d(i, o, k, **options):
        return qnn.QuantConv1d(
            i, o, k, bias=False, weight_bit_width=3, weight_quant=Int8WeightPerChannelFloat, **options
        )

    return nn.Sequential(
        signed(8),
        conv1d(24, 20, 5, padding=2, stride=2),
        norm(20, 1),
        relu(3),
        conv1d(20, 20, 3, padding=2, dilation=2),
        norm(20, 1),
        relu(3),
        nn.MaxPool1d(2),
        conv1d(20, 33, 3),
        norm(33, 1),
        relu(8),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        signed(8),
        dense(33, 12, 8),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        signed(8),
        dense(64, 100, 3, False),
        norm(100, 1),
        relu(3),
        dense(100, 70, 2, False),
        norm(70, 1),
        relu(2),
        dense(70, 10, 4),
    )


def truncated_pool() -> nn.Module:
    """Average pooling by a shift (Trunc), over a window that is a power of two and one that is not."""
    return nn.Sequential(
        signed(8),
        conv(3, 12, 3, 4),
        norm(12),
        relu(4),
        qnn.TruncAvgPool2d(2, trunc_quant=RoundTo8bit, bit_width=4),
        conv(12, 22, 3, 4, padding=0),
        norm(22),
        relu(4),
        qnn.TruncAvgPool2d(3, trunc_quant=RoundTo8bit, bit_width=4, float_to_int_impl_type="floor"),
        nn.Flatten(),
        dense(88, 10, 4),
    )


IMAGE = (3, 16, 16)
NETWORKS = {  # name: (network, input shape, exporter, options)
    "residual_w3a4": (Residual, IMAGE, export_qonnx, {}),
    "quantized_skip": (QuantizedSkip, IMAGE, export_qonnx, {}),
    "concat": (Concatenated, IMAGE, export_qonnx, {}),
    "cnn_w1a1": (cnn_w1a1, IMAGE, export_qonnx, {}),
    "cnn_w2a2": (cnn_w2a2, (1, 28, 28), export_qonnx, {}),
    "ternary_w2a8": (ternary_w2a8, IMAGE, export_qonnx, {}),
    "asymmetric_weights": (asymmetric_weights, (3, 9, 11), export_qonnx, {}),
    "separable": (separable, (3, 20, 20), export_qonnx, {"dynamic_axes": {"x": {0: "batch"}}}),
    "keywords": (keywords, (24, 40), export_qonnx, {}),
    "mlp_w3a3": (mlp, (1, 8, 8), export_qonnx, {}),
    "radioml_w4a4": (lambda: random_statistics(radioml_vgg10(4, 12, 20, 256)), (2, 256), export_qonnx, {}),
    "kws_mlp_w3a3": (lambda: random_statistics(kws_mlp(3, 98, 70)), (98,), export_qonnx, {}),
    "jets_w6a6": (lambda: random_statistics(jets()), (16,), export_qonnx, {}),
    "truncated_pool": (truncated_pool, IMAGE, export_qonnx, {}),
    "mlp_dynamo": (mlp, (1, 8, 8), export_qonnx, {"dynamo": True, "opset_version": 18}),
    "keywords_dynamo_qcdq": (keywords, (24, 40), export_onnx_qcdq, {"dynamo": True, "opset_version": 21}),
    "residual_qcdq": (Residual, IMAGE, export_onnx_qcdq, {}),
    "cnn_w2a2_qcdq": (cnn_w2a2, (1, 28, 28), export_onnx_qcdq, {}),
    "ternary_qcdq": (ternary_w2a8, IMAGE, export_onnx_qcdq, {}),
    "separable_qcdq": (separable, (3, 20, 20), export_onnx_qcdq, {"dynamic_axes": {"x": {0: "batch"}}}),
    "keywords_qcdq": (keywords, (24, 40), export_onnx_qcdq, {"opset_version": 13}),
}


def without_traces(path: Path) -> None:
    """Takes away the stack traces that torch's dynamo exporter writes into every node, and moves the weights into a
    file beside."""
    model = onnx.load(path)
    for node in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        *model.graph.initializer,
        model.graph,
        model,
    ):
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    beside = path.with_name(path.name + ".data")
    beside.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=beside.name, size_threshold=64)


def make(name: str) -> None:
    build, shape, export, options = NETWORKS[name]
    torch.manual_seed(sum(map(ord, name)))
    torch.set_num_threads(1)
    network = build()
    for module in network.modules():  # activation scales from data; BatchNorm keeps its random statistics
        module.train(not isinstance(module, nn.modules.batchnorm._BatchNorm))
    with torch.no_grad():
        for _ in range(8):
            network(torch.randn(16, *shape))
    network.eval()
    path = HERE / f"brevitas_{name}.onnx"
    options = {"opset_version": OPSET, "dynamo": False, "input_names": ["x"], "output_names": ["y"], **options}
    x = torch.randn(4, *shape)
    with torch.no_grad():
        y = network(x)
        export(network, input_t=x[:1], export_path=str(path), **options)
    if options["dynamo"]:
        without_traces(path)
    np.savez_compressed(path.with_suffix(".npz"), x=x.numpy(), y=getattr(y, "value", y).numpy())
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NETWORKS:
        make(chosen)
