"""Transformations of the qonnx package: QONNX from QCDQ and back, channels last, convolutions as products of matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
from qonnx.util.cleanup import cleanup_model

from tests.exporters import brevitas_, ort
from tests.exporters.kept import by_onnxruntime, exporter
from tests.exporters.networks import SAMPLES, SHAPES, Plain, pictures


def by_qonnx(model: ModelWrapper, x: np.ndarray) -> list[np.ndarray]:
    name = model.graph.output[0].name
    return [np.concatenate([execute_onnx(model, {"x": x[i : i + 1]})[name] for i in range(len(x))])]


def changed(folder: Path, path: Path, *transformations):
    model = cleanup_model(ModelWrapper(str(path)))
    model.graph.input[0].name
    for transformation in transformations:
        model = model.transform(transformation)
    model = model.transform(InferShapes())
    name, x = model.graph.input[0].name, pictures(SAMPLES, SHAPES[Plain])
    assert name == "global_in"
    model.rename_tensor(name, "x")
    made = folder / "changed.onnx"
    model.save(str(made))
    return model, made, x


@exporter("qonnx_from_qdq", "qonnx", "QCDQToQuant of what ONNX Runtime quantized", "qonnx")
def from_qdq(folder: Path):
    model, path, x = changed(folder, ort.qdq_plain(folder)[0], QCDQToQuant())
    return path, {"x": x}, by_qonnx(model, x)


@exporter("qonnx_to_qcdq", "qonnx", "QuantToQCDQ of what Brevitas exported")
def to_qcdq(folder: Path):
    _, path, x = changed(folder, brevitas_.qonnx(folder)[0], QuantToQCDQ())
    return path, {"x": x}, by_onnxruntime(path, {"x": x})


@exporter("qonnx_channels_last", "qonnx", "ConvertToChannelsLastAndClean of what Brevitas exported", "qonnx")
def channels_last(folder: Path):
    model, path, x = changed(folder, brevitas_.qonnx(folder)[0], ConvertToChannelsLastAndClean())
    return path, {"x": x}, by_qonnx(model, x)


@exporter("qonnx_lowered", "qonnx", "convolutions lowered to Im2Col and MatMul, as FINN has them", "qonnx")
def lowered(folder: Path):
    steps = [ExtractBiasFromConv(), BatchNormToAffine(), GemmToMatMul(), LowerConvsToMatMul()]
    model, path, x = changed(folder, brevitas_.qonnx(folder)[0], *steps)
    return path, {"x": x}, by_qonnx(model, x)
