"""What a tensor can hold: interval arithmetic back to the nearest quantizers."""

from __future__ import annotations

import numpy as np

from mpcompile.frontend.importer import Importer
from mpcompile.ir.graph import Affine, Clip, Pooling, Reshape, Transpose


def real_range(imp: Importer, tensor: str) -> tuple[float, float]:
    """Least and greatest real value that a tensor can hold, as far as its producers tell; infinite where they
    don't."""
    quantizer = imp.type(tensor).quantizer
    if quantizer:
        return quantizer.scale * quantizer.grid.lo, quantizer.scale * quantizer.grid.hi
    node = imp.writers.get(tensor)
    if isinstance(node, (Pooling, Reshape, Transpose)):
        low, high = real_range(imp, node.inputs[0])
        padded = isinstance(node, Pooling) and node.kind == "avg" and np.any(node.pads)
        return (min(low, 0.0), max(high, 0.0)) if padded else (low, high)
    if isinstance(node, Clip):
        low, high = real_range(imp, node.inputs[0])
        return max(low, node.lo), min(high, node.hi)
    if isinstance(node, Affine):
        ends = np.array(real_range(imp, node.inputs[0]))
        if np.isfinite(ends).all():
            ends = np.multiply.outer(node.a, ends) + node.b[:, None]
            return float(ends.min()), float(ends.max())
    return -np.inf, np.inf
