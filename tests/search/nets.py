"""Small searched networks, and data for them."""

from __future__ import annotations

import torch

from mpcompile.search.data import Images
from mpcompile.search.models import ResNet


def small(widths=(6, 10), blocks=(1, 1), bits=(1, 2, 4), side=8, seed=0, classes=4):
    """A ResNet of a few channels, its clips started."""
    torch.manual_seed(seed)
    network = ResNet(widths, blocks, channels=1, side=side, classes=classes, weights=bits, activations=bits)
    network.start_clips(images(16, side).pixels.float() / 255)
    return network


def images(count: int, side: int = 8, classes: int = 4, seed: int = 1) -> Images:
    """Bars at a place that tells the class, in noise: learned within a few steps."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 90, (count, 1, side, side), generator=draw, dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        pixels[i, 0, label * side // classes] = 250
    return Images(pixels, labels)


def random_assignment(network, seed):
    """Any candidate for every choice."""
    from mpcompile.search.layers import BitAssignment

    draw = torch.Generator().manual_seed(seed)

    def pick(choices):
        return {k: v.candidates[int(torch.randint(len(v.candidates), (), generator=draw))] for k, v in choices.items()}

    return BitAssignment(pick(network.weights), pick(network.tensors))
