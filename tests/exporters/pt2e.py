"""PyTorch 2's export quantization (pt2e, now in torchao), exported by torch.onnx."""

from __future__ import annotations

from pathlib import Path

import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

from tests.exporters.kept import by_torch, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Plain, built, export, pictures


def quantized(folder: Path, kind):
    shape = SHAPES[kind]
    program = torch.export.export(built(kind), (torch.zeros(1, *shape),)).module()
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(program, quantizer)
    for x in pictures(CALIBRATED_ON, shape, 3):
        prepared(torch.from_numpy(x[None]))
    converted = convert_pt2e(prepared, fold_quantize=True)
    path = folder / "pt2e.onnx"
    export(converted, path, shape, 21, dynamo=True)
    x = pictures(SAMPLES, shape)
    return path, {"x": x}, by_torch(converted, x)


@exporter("pt2e_plain", "torchao", "pt2e with the x86 quantizer, by torch.onnx's dynamo exporter", "PyTorch")
def plain(folder: Path):
    return quantized(folder, Plain)


@exporter("pt2e_modern", "torchao", "pt2e with the x86 quantizer, SiLU and HardSwish", "PyTorch")
def modern(folder: Path):
    return quantized(folder, Modern)
