"""ResNet-18 and ResNet-50 with torchvision's topology, and ResNet-20 for 32×32 images.

The first convolution and the last dense layer are 8 bits wide. A block's input is float; its first convolution and its
downsample convolution read it through one quantizer, and the add takes it as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.networks.blocks import ENDS, Blocks
from benchmarks.networks.builder import Bits, Network


def resnet18(bits: Bits | None, *, size: int = 224, classes: int = 1000, seed: int = 0) -> Network:
    """At `bits`, or in float32 where bits is None."""
    b = Blocks(bits, size, seed)
    return _stages(b, _stem(b), (2, 2, 2, 2), (64, 128, 256, 512), _basic, classes)


def resnet50(
    bits: Bits | None, *, size: int = 224, classes: int = 1000, seed: int = 0, counts: tuple[int, ...] = (3, 4, 6, 3)
) -> Network:
    """Bottlenecks, `counts` of them a stage; the stride is on the 3×3 convolution, as torchvision has it."""
    b = Blocks(bits, size, seed)
    return _stages(b, _stem(b), counts, (64, 128, 256, 512), _bottleneck, classes)


def resnet20(bits: Bits | None, *, size: int = 32, classes: int = 10, seed: int = 0) -> Network:
    """He et al. 2015, section 4.2, with a 1×1 convolution as shortcut where the shape changes."""
    b = Blocks(bits, size, seed)
    return _stages(b, b.conv_relu(b.image(), 16, 3, 1, "stem", ENDS), (3, 3, 3), (16, 32, 64), _basic, classes)


def _stem(b: Blocks) -> str:
    return b.max_pool(b.conv_relu(b.image(), 64, 7, 2, "stem", ENDS), "stem_pool")


def _stages(b: Blocks, x: str, counts: Sequence[int], widths: Sequence[int], block, classes: int) -> Network:
    for stage, (count, width) in enumerate(zip(counts, widths), 1):
        for i in range(count):
            x = block(b, x, width, 2 if stage > 1 and i == 0 else 1, f"layer{stage}_{i}")
    return b.classifier(x, classes)


def _basic(b: Blocks, x: str, width: int, stride: int, name: str) -> str:
    quantized = b.quant(x, f"{name}_in")
    y = b.quant(b.conv_relu(quantized, width, 3, stride, f"{name}_conv1"), f"{name}_mid")
    return _joined(b, x, quantized, b.conv_bn(y, width, 3, 1, f"{name}_conv2"), stride, name)


def _bottleneck(b: Blocks, x: str, width: int, stride: int, name: str) -> str:
    quantized = b.quant(x, f"{name}_in")
    y = b.quant(b.conv_relu(quantized, width, 1, 1, f"{name}_conv1"), f"{name}_mid1")
    y = b.quant(b.conv_relu(y, width, 3, stride, f"{name}_conv2"), f"{name}_mid2")
    return _joined(b, x, quantized, b.conv_bn(y, 4 * width, 1, 1, f"{name}_conv3"), stride, name)


def _joined(b: Blocks, x: str, quantized: str, y: str, stride: int, name: str) -> str:
    """relu(y + the skip)."""
    width = len(b.values[y])
    skip = x if stride == 1 and len(b.values[x]) == width else b.conv_bn(quantized, width, 1, stride, f"{name}_down")
    return b.relu(b.add(y, skip, f"{name}_add"), f"{name}_relu2")
