"""NVIDIA ModelOpt: of a PyTorch module, exported by torch.onnx."""

from __future__ import annotations

from pathlib import Path

import modelopt.torch.quantization as mtq
import torch

from tests.exporters.kept import by_torch, exporter
from tests.exporters.networks import CALIBRATED_ON, SAMPLES, SHAPES, Plain, built, export, pictures


@exporter("modelopt_torch_plain", "nvidia-modelopt", "mtq.quantize with INT8_DEFAULT_CFG, by torch.onnx", "PyTorch")
def torch_plain(folder: Path):
    shape, path = SHAPES[Plain], folder / "modelopt.onnx"

    def calibrate(module):
        module(torch.from_numpy(pictures(CALIBRATED_ON, shape, 3)))

    module = mtq.quantize(built(Plain), mtq.INT8_DEFAULT_CFG, calibrate)
    export(module, path, shape)
    x = pictures(SAMPLES, shape)
    return path, {"x": x}, by_torch(module, x)
