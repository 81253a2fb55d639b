"""PyTorch's exported programs through Relax: what pt2e leaves, and Brevitas's fake quantization. PyTorch itself is the
witness, to the bit: all scales are powers of two, so that its float sums are exact."""

import numpy as np
import pytest
import torch
import torch.ao.quantization.fx._decomposed
from torch import nn

from mpcompile.relax import BitSerialize, from_exported_program
from tests.relax.modules import calls_of, run
from tests.relax.test_pass import integers

OPS = torch.ops.quantized_decomposed


class Pt2e(nn.Module):
    """As convert_pt2e leaves a convolution, a ReLU and a linear layer: weights frozen as int8, per channel."""

    def __init__(self, low, high):
        super().__init__()
        rng = np.random.default_rng(0)
        self.low, self.high = low, high
        for name, shape in (("conv", (8, 4, 3, 3)), ("linear", (5, 8))):
            self.register_buffer(name, torch.tensor(rng.integers(-7, 8, shape), dtype=torch.int8))
            self.register_buffer(f"{name}_scale", torch.tensor(2.0 ** rng.integers(-4, -1, shape[0])))
            self.register_buffer(f"{name}_zero", torch.zeros(shape[0], dtype=torch.int64))

    def quantized(self, x, scale, zero):
        limits = (scale, zero, self.low, self.high, torch.int8)
        return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, *limits), *limits)

    def weight(self, name):
        codes, scale, zero = (getattr(self, name + end) for end in ("", "_scale", "_zero"))
        return OPS.dequantize_per_channel(codes, scale, zero, 0, -7, 7, torch.int8)

    def forward(self, x):
        x = torch.relu(nn.functional.conv2d(self.quantized(x, 0.25, 1), self.weight("conv"), padding=1))
        x = self.quantized(x, 0.5, self.low).mean((2, 3))
        return nn.functional.linear(self.quantized(x, 1.0, 0), self.weight("linear"))


def through_relax(network, x):
    """The rewritten module of a network, what the pass said of it, and what it computes."""
    said = []
    with torch.no_grad():
        program = torch.export.export(network, (torch.from_numpy(x),))
    new = BitSerialize(explain=True, say=said.append)(from_exported_program(program, unwrap_unit_return_tuple=True))
    return new, said, run(new, x)[0]


@pytest.mark.parametrize(("low", "high", "bits"), [(-128, 127, 8), (-8, 7, 4)])
def test_what_pt2e_leaves(low, high, bits):
    """8 bits, and 4 in an int8: a clip between quantize and dequantize."""
    network, x = Pt2e(low, high), integers((1, 4, 4, 4))
    new, said, found = through_relax(network, x)
    np.testing.assert_array_equal(found, network(torch.from_numpy(x)).numpy())
    assert sum(f"activations {bits} bits" in line for line in said) == 2, said
    assert calls_of(new).count("relax.call_dps_packed") >= 1


def test_brevitas_in_its_inference_mode():
    """Its own export mode leaves divide, add, round, maximum, minimum, subtract, multiply."""
    import brevitas.nn as qnn
    from brevitas.export.inference import quant_inference_mode
    from brevitas.quant import (
        Int8ActPerTensorFixedPoint,
        Int8WeightPerTensorFixedPoint,
        Uint8ActPerTensorFixedPoint,
    )

    torch.manual_seed(0)
    weights = {"weight_quant": Int8WeightPerTensorFixedPoint, "weight_bit_width": 3, "bias": False}
    network = nn.Sequential(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, bit_width=4),
        qnn.QuantConv2d(3, 8, 3, padding=1, **weights),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, bit_width=2),
        qnn.QuantConv2d(8, 16, 3, stride=2, **weights),
    )
    x = integers((1, 3, 12, 12))
    network(torch.from_numpy(x))  # activations' scales
    network.eval()
    with torch.no_grad(), quant_inference_mode(network):
        wanted = network(torch.from_numpy(x))
        _, said, found = through_relax(network, x)
    np.testing.assert_array_equal(found, wanted.numpy())
    assert any("weights 3 bits" in line and "activations 4 bits -8..7" in line for line in said), said
    assert any("activations 2 bits 0..3" in line for line in said)
