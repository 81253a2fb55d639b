"""ONNX Runtime's quantizer, in every format that it writes; a scikit-learn network quantized by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from tests.exporters.kept import by_onnxruntime, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Perceptron, Plain, float_file, pictures


class Pictures(CalibrationDataReader):
    def __init__(self, shape):
        self.left = iter([{"x": x[None]} for x in pictures(CALIBRATED_ON, shape, 3)])

    def get_next(self):
        return next(self.left, None)


def static(folder: Path, kind, opset: int = 17, **options):
    plain, path = float_file(kind, folder / "float.onnx", opset), folder / "quantized.onnx"
    quant_pre_process(str(plain), str(plain))
    types = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    quantize_static(str(plain), str(path), Pictures(SHAPES[kind]), **(types | options))
    x = {"x": pictures(SAMPLES, SHAPES[kind])}
    return path, x, by_onnxruntime(path, x)


@exporter("ort_qdq_plain", "onnxruntime", "QDQ, activations of uint8, a scale for each output channel")
def qdq_plain(folder: Path):
    return static(folder, Plain, quant_format=QuantFormat.QDQ, per_channel=True)


@exporter("ort_qdq_modern", "onnxruntime", "QDQ, SiLU, HardSwish, squeeze and excitation; percentile calibration")
def qdq_modern(folder: Path):
    method = CalibrationMethod.Percentile
    return static(folder, Modern, quant_format=QuantFormat.QDQ, per_channel=True, calibrate_method=method)


@exporter("ort_qdq_symmetric", "onnxruntime", "QDQ, int8 throughout, symmetric")
def qdq_symmetric(folder: Path):
    extra = {"ActivationSymmetric": True, "AddQDQPairToWeight": True}
    return static(folder, Plain, quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, extra_options=extra)


@exporter("ort_qoperator_plain", "onnxruntime", "QOperator, weights of 7 bits")
def qoperator(folder: Path):
    return static(folder, Plain, quant_format=QuantFormat.QOperator, per_channel=True, reduce_range=True)


@exporter("ort_qoperator_modern", "onnxruntime", "QOperator with Sigmoid and products, weights of 7 bits")
def qoperator_modern(folder: Path):
    return static(folder, Modern, quant_format=QuantFormat.QOperator, reduce_range=True)


@exporter("ort_qdq_int4", "onnxruntime", "com.microsoft QDQ, weights of 4 bits below opset 21")
def int4(folder: Path):
    return static(folder, Plain, quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt4)


@exporter("ort_qdq_int4_opset21", "onnxruntime", "QDQ of opset 21, weights of 4 bits")
def int4_opset21(folder: Path):
    return static(folder, Plain, 21, quant_format=QuantFormat.QDQ, weight_type=QuantType.QInt4)


@exporter("ort_qdq_uint16", "onnxruntime", "com.microsoft QDQ, activations of 16 bits")
def uint16(folder: Path):
    return static(folder, Perceptron, quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt16)


@exporter("ort_dynamic", "onnxruntime", "dynamic quantization, weights of 7 bits")
def dynamic(folder: Path):
    plain, path = float_file(Perceptron, folder / "float.onnx"), folder / "quantized.onnx"
    quantize_dynamic(str(plain), str(path), reduce_range=True)
    x = {"x": pictures(SAMPLES, SHAPES[Perceptron])}
    return path, x, by_onnxruntime(path, x)


@exporter("skl2onnx_perceptron", "skl2onnx", "a scikit-learn MLPRegressor, quantized by ONNX Runtime")
def sklearn(folder: Path):
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPRegressor

    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, 12)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.tanh(x[:, 2])
    model = MLPRegressor(hidden_layer_sizes=(24, 16), max_iter=60, random_state=0).fit(x, y)
    plain, path = folder / "float.onnx", folder / "quantized.onnx"
    plain.write_bytes(to_onnx(model, x[:1], target_opset=17).SerializeToString())

    class Rows(CalibrationDataReader):
        left = iter([{"X": row[None]} for row in x[:CALIBRATED_ON]])

        def get_next(self):
            return next(self.left, None)

    quantize_static(str(plain), str(path), Rows(), QuantFormat.QDQ, weight_type=QuantType.QInt8)
    given = {"X": x[:SAMPLES]}
    return path, given, by_onnxruntime(path, given)
