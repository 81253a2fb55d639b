"""Transformations of the qonnx package: QONNX of a QDQ file, channels last."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
from qonnx.util.cleanup import cleanup_model

from tests.exporters import brevitas_, ort
from tests.exporters.kept import exporter
from tests.exporters.networks import SAMPLES, SHAPES, Plain, pictures


def changed(folder: Path, path: Path, transformation):
    """The file behind qonnx's clean-up and a transformation, with what qonnx's executor computes."""
    plain = onnx.load(path)
    del plain.graph.value_info[:]  # ONNX Runtime's quantizer leaves outputs among them
    model = cleanup_model(ModelWrapper(plain)).transform(transformation).transform(InferShapes())
    made, x = folder / "changed.onnx", pictures(SAMPLES, SHAPES[Plain])
    given, found = model.graph.input[0].name, model.graph.output[0].name
    y = [execute_onnx(model, {given: x[i : i + 1]})[found] for i in range(len(x))]
    model.save(str(made))
    return made, {given: x}, [np.concatenate(y)]


@exporter("qonnx_from_qdq", "qonnx", "QCDQToQuant of what ONNX Runtime quantized", "qonnx")
def from_qdq(folder: Path):
    return changed(folder, ort.qdq_symmetric(folder)[0], QCDQToQuant())


@exporter("qonnx_channels_last", "qonnx", "ConvertToChannelsLastAndClean of what Brevitas exported", "qonnx")
def channels_last(folder: Path):
    return changed(folder, brevitas_.qonnx(folder)[0], ConvertToChannelsLastAndClean())
