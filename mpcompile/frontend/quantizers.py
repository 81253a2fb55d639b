"""What QONNX's and ONNX's quantizers share: their parameters as constants, and the grid for a range of codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend import grids
from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Affine, Quantize, Quantizer
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
        raise ModelError(f"{node}: {array.size} {what}s over an activation; one {what} per tensor would be accepted")
    return float(array.flat[0])


def finite(imp: Importer, node: Source) -> np.ndarray:
    """The constant that is quantized. Raises ModelError where it holds a NaN or an infinity."""
    data = imp.constant(node, 0, "data")
    if not np.isfinite(data).all():
        raise ModelError(f"{node}: its data holds {data[~np.isfinite(data)].flat[0]}; finite data would be accepted")
    return data


ZERO_FIRST = "zero_first"
"""Attribute of a QuantizeLinear that takes the place of an operator on codes: round(x/s + z), as ONNX Runtime's sums,
products and average pools do, in place of round(x/s) + z. They differ at ties where z is odd."""


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


def spacings(node: Source, scale: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale over an activation: float64 [1], or [C] where channels have their own. Raises ModelError at scales along
    another axis."""
    if (scale == scale.flat[0]).all():
        return np.array([per_tensor(node, scale, "scale")])
    if len(shape) < 2 or scale.size != shape[1] or scale.ndim < 2 or scale.shape[1] != shape[1]:
        raise ModelError(
            f"{node}: {scale.size} scales over an activation; one scale per tensor or per channel would be accepted"
        )
    return scale.reshape(-1).astype(np.float64)


def quantize_channels(
    imp: Importer, node: Source, tensor: str, spacing: np.ndarray, make: Callable[[float], Quantizer]
) -> None:
    """Output 0 of `node` stands for `tensor` on the grid that make(scale) gives. Where channels have scales of their own
    (`spacing` [C]) it is quantized in units of them: a depthwise convolution reads that, all else what is multiplied out
    again."""
    if spacing.size == 1:
        return imp.quantize(node, tensor, make(spacing[0]))
    if tensor in imp.whole:
        raise ModelError(f"{node}: a scale per channel where axis 0 is not the batch; one per tensor would be accepted")
    made = make(1.0)
    units = affine(imp, node, tensor, "units", 1 / spacing)
    name = imp.unique(f"{node.outputs[0]}.codes")
    base = imp.emit(Quantize(imp.unique(f"{node.name}.codes"), [units], [name], made), quantizer=made)
    real = affine(imp, node, base, "real", spacing)
    return imp.define(node, Activation(real, scaled=(base, spacing)))


def affine(imp: Importer, node: Source, x: str, what: str, a: np.ndarray, b: np.ndarray | None = None) -> str:
    """Emits a·x + b; its output's name. a, b: float64 [1] or [C]."""
    names = [x], [imp.unique(f"{node.outputs[0]}.{what}")]
    return imp.emit(Affine(imp.unique(f"{node.name}.{what}"), *names, a=a, b=np.zeros(1) if b is None else b))
