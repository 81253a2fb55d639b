"""A module to a file of 8 bits, as people do it: torch.onnx, ONNX Runtime's pre-processing, its static quantizer (QDQ)."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.exported import BREVITAS, EXPORTED
from benchmarks.exported.yolo import Detect

OPSET = 17
CALIBRATED_ON = 4
"""Random pictures."""


def settled(module: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """In evaluation mode, its BatchNorms with statistics of random pictures: values keep a size from layer to layer."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    module.train()
    with torch.no_grad():
        for _ in range(2):
            module(torch.randn(1 if any(isinstance(m, Detect) for m in module.modules()) else 4, *shape))
    return module.eval()


def write_quantized(name: str, path: Path, shape: tuple[int, ...] | None = None, seed: int = 0) -> Path:
    """Writes the network `name` of EXPORTED, quantized; `shape` of its input without batch, the usual one unless told."""
    shape = shape or EXPORTED[name].shape
    if EXPORTED[name].module == BREVITAS:
        from benchmarks.exported import brevitas_networks

        return brevitas_networks.write_qcdq(getattr(brevitas_networks, EXPORTED[name].name), path, shape, seed)
    torch.manual_seed(seed)
    module = settled(EXPORTED[name].make(shape), shape)
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((CALIBRATED_ON, *shape), np.float32)
    plain = path.with_suffix(".float.onnx")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            names = dict(input_names=["x"], output_names=["y"])
            torch.onnx.export(module, (torch.zeros(1, *shape),), str(plain), opset_version=OPSET, dynamo=False, **names)
        quantize_file(plain, path, pictures)
    finally:
        plain.unlink(missing_ok=True)
    return path


def quantize_file(plain: Path, path: Path, pictures: np.ndarray, symbolic: bool = True) -> None:
    """The float file `plain` of one input to 8 bits in `path`, its ranges those of `pictures` [N, ...]; `plain` is
    pre-processed in place, by ONNX Runtime's inference of `symbolic` shapes, too."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(plain, load_external_data=False).graph.input[0].name

    class Pictures(CalibrationDataReader):
        def __init__(self):
            self.left = iter(pictures)

        def get_next(self):
            picture = next(self.left, None)
            return None if picture is None else {name: picture[None]}

    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            quant_pre_process(str(plain), str(plain), skip_symbolic_shape=not symbolic)
            types = dict(activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
            quantize_static(str(plain), str(path), Pictures(), QuantFormat.QDQ, per_channel=True, **types)
    finally:
        logging.disable(logging.NOTSET)
