"""Networks that people have, as PyTorch modules with random weights: exported by torch.onnx, quantized by ONNX Runtime, and
measured against ONNX Runtime on the same file.

    python -m benchmarks.exported [NAME …] [--size N] [--json F]
    python -m benchmarks.exported yolov8n -o yolov8n.onnx          only writes the quantized file
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Exported(NamedTuple):
    """make(size) → a torch module; `shape` is its input's at the usual size, `small` at one for tests."""

    make: Callable[[int], Any]
    shape: tuple[int, ...]
    small: tuple[int, ...]


def _yolov8n(size: int):
    from benchmarks.exported.yolo import YoloV8

    return YoloV8(size)


def _mobile(name: str):
    def make(size: int):
        from benchmarks.exported import mobile

        return getattr(mobile, name)()

    return make


def _unet(size: int):
    from benchmarks.exported.unet import UNet

    return UNet()


EXPORTED = {
    "yolov8n": Exported(_yolov8n, (3, 640, 640), (3, 64, 64)),
    "mobilenet_v3_small": Exported(_mobile("mobilenet_v3_small"), (3, 224, 224), (3, 64, 64)),
    "efficientnet_lite0": Exported(_mobile("efficientnet_lite0"), (3, 224, 224), (3, 64, 64)),
    "shufflenet_v2": Exported(_mobile("shufflenet_v2"), (3, 224, 224), (3, 64, 64)),
    "unet": Exported(_unet, (3, 256, 256), (3, 32, 32)),
    "ds_cnn": Exported(_mobile("ds_cnn"), (1, 49, 10), (1, 49, 10)),
}
"""Name → what makes it."""
