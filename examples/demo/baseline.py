"""What the bundle is compared with: ONNX Runtime on the same architecture, fp32 and int8 (static QDQ, per channel)."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
from data import Data, scaled

from mpcompile.files import atomic_path

CALIBRATION_IMAGES = 128


def quantize_int8(source: Path, target: Path, data: Data) -> None:
    """ONNX Runtime's own static quantization of `source`: u8 activations, s8 weights, min-max over training images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self):
            self.left = iter(scaled(data.train[0][:CALIBRATION_IMAGES]))

        def get_next(self):
            image = next(self.left, None)
            return None if image is None else {"image": image[None]}

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, atomic_path(target) as out:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(out),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def answers(session, images: np.ndarray) -> np.ndarray:
    """int64 [N]: ONNX Runtime's top-1 for uint8 images [N, C, 32, 32]."""
    return np.array([session.run(None, {"image": image[None]})[0].argmax() for image in scaled(images)])
