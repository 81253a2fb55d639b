"""NVIDIA ModelOpt: of a PyTorch module, exported by torch.onnx, and of an ONNX file."""

from __future__ import annotations

from pathlib import Path

import modelopt.torch.quantization as mtq
import torch

from tests.exporters.kept import by_onnxruntime, by_torch, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Modern, Plain, built, export, float_file, pictures


@exporter("modelopt_torch_plain", "nvidia-modelopt", "mtq.quantize with INT8_DEFAULT_CFG, by torch.onnx", "PyTorch")
def torch_plain(folder: Path):
    shape, path = SHAPES[Plain], folder / "modelopt.onnx"

    def calibrate(module):
        module(torch.from_numpy(pictures(CALIBRATED_ON, shape, 3)))

    module = mtq.quantize(built(Plain), mtq.INT8_DEFAULT_CFG, calibrate)
    export(module, path, shape)
    x = pictures(SAMPLES, shape)
    return path, {"x": x}, by_torch(module, x)


def of_onnx(folder: Path, kind, **options):
    from modelopt.onnx.quantization import quantize

    shape, path = SHAPES[kind], folder / "modelopt.onnx"
    plain = float_file(kind, folder / "float.onnx")
    quantize(
        str(plain), quantize_mode="int8", calibration_data={"x": pictures(CALIBRATED_ON, shape, 3)},
        output_path=str(path), calibration_eps=["cpu"], **options,
    )  # fmt: skip
    x = {"x": pictures(SAMPLES, shape)}
    return path, x, by_onnxruntime(path, x)


@exporter("modelopt_onnx_plain", "nvidia-modelopt", "modelopt.onnx.quantization, the rest in float32")
def onnx_plain(folder: Path):
    return of_onnx(folder, Plain, high_precision_dtype="fp32")


@exporter("modelopt_onnx_fp16", "nvidia-modelopt", "modelopt.onnx.quantization with its default, the rest in float16")
def onnx_fp16(folder: Path):
    return of_onnx(folder, Modern)
