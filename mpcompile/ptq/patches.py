"""What a contraction multiplies, as a matrix: one row for each place of its output, one column for each of its weights.

Of a transposed convolution: one row for each place of its input, one column for each of its channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx

from mpcompile.errors import ModelError


@dataclass(frozen=True)
class Window:
    """Of a convolution, over its spatial axes; pads before and after."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilations: tuple[int, ...]
    groups: int


def window_of(node: onnx.NodeProto, weight: np.ndarray, spatial: tuple[int, ...]) -> Window:
    """Raises ModelError at an auto_pad that ONNX does not know."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    kernel = tuple(weight.shape[2:])
    ones = (1,) * len(kernel)
    if node.op_type == "ConvTranspose":
        return Window(ones, ones, ((0, 0),) * len(kernel), ones, given.get("group", 1))
    strides, dilations = tuple(given.get("strides", ones)), tuple(given.get("dilations", ones))
    flat = tuple(given.get("pads", (0,) * 2 * len(kernel)))
    pads = tuple(zip(flat[: len(kernel)], flat[len(kernel) :]))
    auto = given.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, k, s, d in zip(spatial, kernel, strides, dilations):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            less, more = total // 2, total - total // 2
            found.append((less, more) if auto == "SAME_UPPER" else (more, less))
        pads = tuple(found)
    elif auto not in ("NOTSET", "VALID"):
        raise ModelError(f"node {node.name} ({node.op_type}): auto_pad {auto}")
    return Window(kernel, strides, pads, dilations, given.get("group", 1))


def patches(x: np.ndarray, window: Window | None, most: int | None = None) -> np.ndarray:
    """float32 [groups, rows, weights of one output channel] of an input with its batch; None: of a Gemm or MatMul. Where
    there are more rows than `most`, about so many: of a convolution those of every so many-th line."""
    if window is None:
        rows = x.reshape(1, -1, x.shape[-1])
        return rows[:, :: _step(rows.shape[1], most)]
    padded = np.pad(x, ((0, 0), (0, 0), *window.pads))
    reach = tuple((k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations))
    axes = tuple(range(2, x.ndim))
    seen = np.lib.stride_tricks.sliding_window_view(padded, reach, axes)
    steps = (slice(None), slice(None), *(slice(None, None, s) for s in window.strides))
    seen = seen[(*steps, *(slice(None, None, d) for d in window.dilations))]  # [N, C, *out, *kernel]
    seen = seen[:, :, :: _step(len(x) * math.prod(seen.shape[2 : 2 + len(axes)]), most)]
    n, channels = seen.shape[:2]
    seen = seen.reshape(n, window.groups, channels // window.groups, *seen.shape[2:])
    out = range(3, 3 + len(axes))
    kernel = range(3 + len(axes), seen.ndim)
    moved = seen.transpose(1, 0, *out, 2, *kernel)
    return np.ascontiguousarray(moved).reshape(
        window.groups, -1, channels // window.groups * int(np.prod(window.kernel))
    )


def _step(rows: int, most: int | None) -> int:
    return -(-rows // most) if most else 1
