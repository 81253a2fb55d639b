"""Where the windows of a Conv or pool lie: strides, pads, dilations, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Source


def window(node: Source, spatial: Sequence[int], kernel: tuple[int, ...]):
    """(strides, pads as (before, after) per axis, dilations) of a Conv or pool, auto_pad resolved for `spatial`.

    Raises ModelError where there are not as many as spatial axes, or one is out of range.
    """
    n = len(kernel)
    strides = tuple(node.attribute("strides", [1] * n))
    dilations = tuple(node.attribute("dilations", [1] * n))
    flat = node.attribute("pads", [0] * 2 * n)
    if any(len(given) != want for given, want in ((spatial, n), (strides, n), (dilations, n), (flat, 2 * n))):
        raise ModelError(
            f"{node}: strides, pads or dilations that do not fit a kernel of {list(kernel)} over {len(spatial)} axes"
        )
    if min(*kernel, *strides, *dilations) < 1 or min(flat) < 0:
        raise ModelError(f"{node}: a kernel, stride or dilation below 1, or negative pads")
    pads = tuple(zip(flat[:n], flat[n:]))
    auto = node.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = ((0, 0),) * n
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, k, s, d in zip(spatial, kernel, strides, dilations):
            total = max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
            less, more = total // 2, total - total // 2
            pads.append((less, more) if auto == "SAME_UPPER" else (more, less))
        pads = tuple(pads)
    return strides, tuple((int(a), int(b)) for a, b in pads), dilations


def window_shape(spatial, kernel, strides, pads, dilations) -> tuple[int, ...]:
    """Output size per spatial axis."""
    return tuple(
        (size + a + b - (k - 1) * d - 1) // s + 1
        for size, k, s, (a, b), d in zip(spatial, kernel, strides, pads, dilations)
    )
