"""GoogLeNet: inception blocks whose branches meet in a concat.

Szegedy et al. 2014, table 1, with BatchNorm (as torchvision has it) and without the auxiliary classifiers. The branch
after the 5×5 reduction is a 5×5 convolution as in the paper (torchvision has 3×3 there). Each branch ends in a
quantizer of its own, so the slices of a concat lie on different grids.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.networks.blocks import ENDS, Blocks
from benchmarks.networks.builder import Bits, Network

# 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection; None: a max pool, stride 2
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
HALVING = (0, 0, 1, 1)
"""Pads of a 3×3 pool, stride 2, that give what rounding up gives."""


def googlenet(
    bits: Bits | None, *, size: int = 224, classes: int = 1000, seed: int = 0, blocks: Sequence[str] = tuple(INCEPTION)
) -> Network:
    """At `bits`, or in float32 where bits is None; of INCEPTION only these blocks."""
    b = Blocks(bits, size, seed)
    x = b.quant(b.max_pool(b.conv_relu(b.image(), 64, 7, 2, "conv1", ENDS), "pool1", pads=HALVING), "pool1")
    x = b.quant(b.conv_relu(x, 64, 1, 1, "conv2"), "conv2")
    x = b.quant(b.conv_relu(x, 192, 3, 1, "conv3"), "conv3")
    x = b.max_pool(x, "pool2", pads=HALVING)
    for name in blocks:
        widths = INCEPTION[name]
        x = _inception(b, x, widths, f"inception{name}") if widths else b.max_pool(x, name, pads=HALVING)
    return b.classifier(x, classes)


def _inception(b: Blocks, x: str, widths: tuple[int, ...], name: str) -> str:
    def branch(source: str, out: int, k: int, part: str) -> str:
        return b.quant(b.conv_relu(source, out, k, 1, f"{name}_{part}"), f"{name}_{part}")

    one, reduce3, three, reduce5, five, projection = widths
    return b.concat(
        [
            branch(x, one, 1, "1x1"),
            branch(branch(x, reduce3, 1, "3x3_reduce"), three, 3, "3x3"),
            branch(branch(x, reduce5, 1, "5x5_reduce"), five, 5, "5x5"),
            branch(b.max_pool(x, f"{name}_pool", stride=1), projection, 1, "projection"),
        ],
        f"{name}_concat",
    )
