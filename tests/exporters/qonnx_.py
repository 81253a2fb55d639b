"""Transformations of the qonnx package: QONNX of a QDQ file, channels last."""

from __future__ import annotations

from pathlib import Path

import onnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
from qonnx.util.cleanup import cleanup_model

from tests.exporters import brevitas_, ort
from tests.exporters.kept import by_qonnx, exporter
from tests.exporters.networks import SAMPLES, SHAPES, Plain, pictures


def changed(folder: Path, path: Path, transformation):
    """The file behind qonnx's clean-up and a transformation, with what qonnx's executor computes."""
    plain = onnx.load(path)
    del plain.graph.value_info[:]  # ONNX Runtime's quantizer leaves outputs among them
    model = cleanup_model(ModelWrapper(plain)).transform(transformation).transform(InferShapes())
    made, x = folder / "changed.onnx", pictures(SAMPLES, SHAPES[Plain])
    model.save(str(made))
    return made, {model.graph.input[0].name: x}, by_qonnx(model, x)


@exporter("qonnx_from_qdq", "qonnx", "QCDQToQuant of what ONNX Runtime quantized", "qonnx")
def from_qdq(folder: Path):
    return changed(folder, ort.qdq_symmetric(folder)[0], QCDQToQuant())


@exporter("qonnx_channels_last", "qonnx", "ConvertToChannelsLastAndClean of what Brevitas exported", "qonnx")
def channels_last(folder: Path):
    return changed(folder, brevitas_.qonnx(folder)[0], ConvertToChannelsLastAndClean())
