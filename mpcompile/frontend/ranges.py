"""What a tensor can hold: interval arithmetic back to the nearest quantizers."""

from __future__ import annotations

import numpy as np

from mpcompile.frontend.importer import Importer
from mpcompile.ir.graph import Affine, Clip, Node, Pooling, Reshape, Transpose

Range = tuple[float, float]


def real_range(imp: Importer, tensor: str) -> Range:
    """Least and greatest real value that a tensor can hold, as far as its producers tell; infinite where they don't.

    Found once for each tensor, without recursion: models may be thousands of operators deep.
    """
    above: list[tuple[str, Node]] = []
    at = tensor
    while at not in imp.ranges:
        quantizer, node = imp.type(at).quantizer, imp.writers.get(at)
        if quantizer:
            imp.ranges[at] = quantizer.scale * quantizer.grid.lo, quantizer.scale * quantizer.grid.hi
        elif isinstance(node, (Pooling, Reshape, Transpose, Clip, Affine)):
            above.append((at, node))
            at = node.inputs[0]
        else:
            imp.ranges[at] = -np.inf, np.inf
    found = imp.ranges[at]
    for written, node in reversed(above):
        found = imp.ranges[written] = _after(node, *found)
    return found


def _after(node: Node, low: float, high: float) -> Range:
    """What `node` makes of values from low to high."""
    if isinstance(node, Clip):
        return max(low, node.lo), min(high, node.hi)
    if isinstance(node, Affine):
        if not (np.isfinite(low) and np.isfinite(high)):
            return -np.inf, np.inf
        ends = np.multiply.outer(node.a, np.array([low, high])) + node.b[:, None]
        return float(ends.min()), float(ends.max())
    padded = isinstance(node, Pooling) and node.kind == "avg" and np.any(node.pads)
    return (min(low, 0.0), max(high, 0.0)) if padded else (low, high)
