"""VGG-small, for 32×32 images: the network of many low-bit papers (HWGQ, LQ-Nets)."""

from __future__ import annotations

from benchmarks.networks.blocks import ENDS, Blocks
from benchmarks.networks.builder import Bits, Network

WIDTHS = (128, 128, 256, 256, 512, 512)


def vgg_small(bits: Bits | None, *, size: int = 32, classes: int = 10, seed: int = 0) -> Network:
    """Six 3×3 convolutions, a 2×2 max pool after every second, one dense layer over the flattened map. At `bits`, or
    in float32 where bits is None."""
    b = Blocks(bits, size, seed)
    x = b.image()
    for i, width in enumerate(WIDTHS):
        x = b.conv_relu(x, width, 3, 1, f"conv{i}", ENDS if i == 0 else None)
        if i % 2:
            x = b.max_pool(x, f"pool{i}", k=2, pads=(0, 0, 0, 0))
        x = b.quant(x, f"conv{i}", ENDS if i == len(WIDTHS) - 1 else None)
    return b.network("image", b.dense(b.flatten(x, "flat"), classes, ENDS, "classes"))
