"""Networks that people have, as PyTorch modules with random weights: exported by torch.onnx and quantized by ONNX Runtime,
or exported by Brevitas, and measured against ONNX Runtime on the same file.

    python -m benchmarks.exported [NAME …] [--size N] [--json F]
    python -m benchmarks.exported yolov8n -o yolov8n.onnx          only writes the quantized file
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

BREVITAS = "brevitas_networks"


class Exported(NamedTuple):
    """`module`, beside this one, has what makes the network: a class or function called `name`, which takes the input's
    size where it is `sized`. `shape` is the input's at the usual size, `small` at one for tests. BREVITAS's networks are
    written by Brevitas, all others by ONNX Runtime's quantizer."""

    module: str
    name: str
    shape: tuple[int, ...]
    small: tuple[int, ...]
    sized: bool = False

    def make(self, shape: tuple[int, ...]) -> Any:
        """The torch module for inputs of `shape`."""
        made = getattr(import_module(f"benchmarks.exported.{self.module}"), self.name)
        return made(shape[-1]) if self.sized else made()


PICTURE, SMALL = (3, 224, 224), (3, 64, 64)
EXPORTED = {
    "yolov8n": Exported("yolo", "YoloV8", (3, 640, 640), SMALL, True),
    "yolo11n": Exported("yolo11", "Yolo11", (3, 640, 640), SMALL, True),
    "mobilenet_v3_small": Exported("mobile", "mobilenet_v3_small", PICTURE, SMALL),
    "efficientnet_lite0": Exported("mobile", "efficientnet_lite0", PICTURE, SMALL),
    "shufflenet_v2": Exported("mobile", "shufflenet_v2", PICTURE, SMALL),
    "squeezenet": Exported("squeezenet", "squeezenet", PICTURE, SMALL),
    "deit_tiny": Exported("deit", "Deit", PICTURE, SMALL, True),
    "unet": Exported("unet", "UNet", (3, 256, 256), (3, 32, 32)),
    "ultraface": Exported("ultraface", "UltraFace", (3, 240, 320), (3, 64, 96)),
    "text_detector": Exported("ocr", "TextDetector", (3, 320, 320), SMALL),
    "text_recogniser": Exported("ocr", "TextRecogniser", (3, 48, 320), (3, 48, 64)),
    "ds_cnn": Exported("mobile", "ds_cnn", (1, 49, 10), (1, 49, 10)),
    "tfc_w2a2": Exported(BREVITAS, "tfc", (1, 28, 28), (1, 28, 28)),
    "cnv_w2a2": Exported(BREVITAS, "cnv", (3, 32, 32), (3, 32, 32)),
    "radioml_vgg10_w4a4": Exported(BREVITAS, "radioml_vgg10", (2, 1024), (2, 1024)),
    "kws_mlp_w3a3": Exported(BREVITAS, "kws_mlp", (490,), (490,)),
    "jets_w6a6": Exported(BREVITAS, "jets", (16,), (16,)),
    "mobilenet_v1_w4a4": Exported(BREVITAS, "mobilenet_v1", PICTURE, SMALL),
}
"""Name → what makes it."""
