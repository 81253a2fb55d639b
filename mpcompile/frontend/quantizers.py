"""What QONNX's and ONNX's quantizers share: their parameters as constants, and the grid for a range of codes."""

from __future__ import annotations

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend import grids
from mpcompile.frontend.importer import Importer, Source
from mpcompile.ir.graph import Quantizer
from mpcompile.ir.grid import MAX_BITS


def scale_of(imp: Importer, node: Source, index: int) -> np.ndarray:
    """A scale input as an array. Raises ModelError where it is no constant, or not positive and finite."""
    scale = imp.constant(node, index, "scale")
    if not scale.size or not np.isfinite(scale).all() or (scale <= 0).any():
        bad = scale[~(np.isfinite(scale) & (scale > 0))]
        raise ModelError(
            f"{node}: a scale of {bad.flat[0] if bad.size else 'no value'}; positive finite scales would be accepted"
        )
    return scale


def per_tensor(node: Source, array: np.ndarray, what: str) -> float:
    """The one value of a quantizer's parameter over an activation. Raises ModelError at several, and at what is not
    finite."""
    if not array.size or not np.isfinite(array).all():
        raise ModelError(
            f"{node}: a {what} of {array[~np.isfinite(array)].flat[0] if array.size else 'no value'}; finite ones "
            "would be accepted"
        )
    if (array != array.flat[0]).any():
        raise ModelError(
            f"{node}: {array.size} {what}s over an activation (per channel); one {what} per tensor would be accepted"
        )
    return float(array.flat[0])


def finite(imp: Importer, node: Source) -> np.ndarray:
    """The constant that is quantized. Raises ModelError where it holds a NaN or an infinity."""
    data = imp.constant(node, 0, "data")
    if not np.isfinite(data).all():
        raise ModelError(f"{node}: its data holds {data[~np.isfinite(data)].flat[0]}; finite data would be accepted")
    return data


def quantizer(
    where, spacing: float, zero: float, low: int, high: int, rounding: str, zero_first: bool, max_bits: int = MAX_BITS
) -> Quantizer:
    """Codes low..high around `zero` (whole or half) to the tightest grid. `where` begins the message of what it
    raises."""
    if 2 * zero != int(2 * zero):
        raise ModelError(f"{where}: a zero point of {zero:g}; whole and half numbers would be accepted")
    step = 1 if zero == int(zero) else 2
    first, last = (int(step * (u - zero)) for u in (low, high))
    grid = grids.tightest(first, last, step, str(where), max_bits)
    return Quantizer(grid, spacing, zero, low, rounding, zero_first)
