"""NNCF: of an ONNX file, and of a PyTorch module with FakeQuantize."""

from __future__ import annotations

from pathlib import Path

import nncf
import onnx
import torch

from tests.exporters.kept import by_onnxruntime, by_torch, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Plain, built, export, float_file, pictures


def of_onnx(folder: Path, kind):
    shape, path = SHAPES[kind], folder / "nncf.onnx"
    model = onnx.load(float_file(kind, folder / "float.onnx"))
    data = nncf.Dataset([{"x": x[None]} for x in pictures(CALIBRATED_ON, shape, 3)])
    onnx.save(nncf.quantize(model, data, subset_size=CALIBRATED_ON), path)
    x = {"x": pictures(SAMPLES, shape)}
    return path, x, by_onnxruntime(path, x)


@exporter("nncf_onnx_plain", "nncf", "nncf.quantize of an ONNX file")
def onnx_plain(folder: Path):
    return of_onnx(folder, Plain)


@exporter("nncf_onnx_modern", "nncf", "nncf.quantize of an ONNX file, SiLU and HardSwish")
def onnx_modern(folder: Path):
    return of_onnx(folder, Modern)


@exporter("nncf_torch_plain", "nncf", "nncf.quantize of a PyTorch module, FakeQuantize exported as QDQ", "PyTorch")
def torch_plain(folder: Path):
    shape, path = SHAPES[Plain], folder / "nncf.onnx"
    data = nncf.Dataset([torch.from_numpy(x[None]) for x in pictures(CALIBRATED_ON, shape, 3)])
    module = nncf.quantize(built(Plain), data, subset_size=CALIBRATED_ON)
    module = nncf.strip(module)
    export(module, path, shape)
    x = pictures(SAMPLES, shape)
    return path, {"x": x}, by_torch(module, x)
