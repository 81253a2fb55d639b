"""From a Brevitas module to a bundle: export to QONNX, compile, run.

    python examples/compile_your_own/brevitas_module.py [-o MODEL.mpc]

Put your own module in the place of `module()`; the QONNX file stays beside the bundle. Needs brevitas, onnx and
onnxoptimizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import brevitas.nn as qnn
import torch
from brevitas.export import export_qonnx
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat, Uint8ActPerTensorFloat
from torch import nn

import mpcompile as mp


def module() -> nn.Module:
    """A convolution with 2-bit weights on 4-bit inputs between layers of 8 bits.

    Untrained: this is about the way, not the answer.
    """
    torch.manual_seed(0)

    def conv(i: int, o: int, bits: int):
        return qnn.QuantConv2d(
            i, o, 3, padding=1, bias=False, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=bits
        )

    return nn.Sequential(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat),
        conv(3, 64, 8),
        nn.BatchNorm2d(64),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=4),
        conv(64, 64, 2),
        nn.BatchNorm2d(64),
        qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        qnn.QuantIdentity(act_quant=Uint8ActPerTensorFloat),
        qnn.QuantLinear(64, 10, bias=True),
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("brevitas_module.mpc"))
    output = parser.parse_args(arguments).output

    network = module()
    network.train()
    for _ in range(8):  # quantizers take their first scales from what they see
        network(torch.randn(16, 3, 32, 32))
    network.eval()

    model = output.with_suffix(".onnx")
    export_qonnx(network, args=torch.zeros(1, 3, 32, 32), export_path=str(model), opset_version=17, dynamo=False)
    mp.compile(model, target="native", output=output)

    images = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        expected = network(images).numpy()
    with mp.open_bundle(output) as bundle:
        got = bundle.run(images.numpy())
        same = int((got.argmax(1) == expected.argmax(1)).sum())
        print(
            f"{output}: {same} of {len(images)} top-1 answers are torch's, "
            f"largest difference {abs(got - expected).max():.2g}; "
            f"{bundle.bench(seconds=0.3).seconds * 1e6:.0f} µs an image"
        )


if __name__ == "__main__":
    main()
