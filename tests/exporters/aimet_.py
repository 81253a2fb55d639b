"""Qualcomm's AIMET: QuantizationSimModel of an ONNX file, written as QDQ."""

from __future__ import annotations

from pathlib import Path

import onnx
from aimet_onnx.quantsim import QuantizationSimModel

from tests.exporters.kept import by_onnxruntime, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Plain, float_file, pictures


def simulated(folder: Path, kind, **options):
    shape, path = SHAPES[kind], folder / "aimet.onnx"
    sim = QuantizationSimModel(onnx.load(float_file(kind, folder / "float.onnx")), **options)
    sim.compute_encodings([{"x": x[None]} for x in pictures(CALIBRATED_ON, shape, 3)])
    onnx.save(sim.to_onnx_qdq(), path)
    x = {"x": pictures(SAMPLES, shape)}
    return path, x, by_onnxruntime(path, x)


@exporter("aimet_plain", "aimet-onnx", "QuantizationSimModel, activations and weights of 8 bits")
def plain(folder: Path):
    return simulated(folder, Plain)


@exporter("aimet_modern", "aimet-onnx", "QuantizationSimModel, SiLU and HardSwish")
def modern(folder: Path):
    return simulated(folder, Modern)


@exporter("aimet_w4", "aimet-onnx", "QuantizationSimModel, weights of 4 bits")
def weights_of_4_bits(folder: Path):
    return simulated(folder, Plain, param_type="int4")
