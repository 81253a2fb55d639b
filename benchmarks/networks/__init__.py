"""Networks to measure: random weights, deterministic, as QONNX at given bits and as float ONNX of the same topology.

    NETWORKS[name](bits, size=…, seed=…)   a whole network; bits None: float32
    conv_layer(shape, bits)                one convolution

`python -m benchmarks.networks NAME --bits w2a2 -o FILE.onnx` writes one.
"""

from benchmarks.networks.builder import Bits, Builder, Network, calibration_image
from benchmarks.networks.googlenet import googlenet
from benchmarks.networks.mobilenet import mobilenet_v1, mobilenet_v2
from benchmarks.networks.resnet import resnet18, resnet20, resnet50
from benchmarks.networks.single import RESNET18_LAYERS, ConvShape, conv_layer
from benchmarks.networks.vgg import vgg_small

__all__ = [
    "NETWORKS",
    "RESNET18_LAYERS",
    "Bits",
    "Builder",
    "ConvShape",
    "Network",
    "calibration_image",
    "conv_layer",
    "googlenet",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet18",
    "resnet20",
    "resnet50",
    "vgg_small",
]

NETWORKS = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "googlenet": googlenet,
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "vgg_small": vgg_small,
    "resnet20": resnet20,
}
"""Name → what makes it, at its usual input size unless told."""
