"""NNCF, of an ONNX file. (Of a PyTorch module it writes OpenVINO's FakeQuantize, which is no ONNX.)"""

from __future__ import annotations

from pathlib import Path

import nncf
import onnx

from tests.exporters.kept import by_onnxruntime, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Plain, float_file, pictures


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
