"""QONNX's quantizers as its standard defines them: IntQuant (once called Quant), BipolarQuant, Trunc v1 and v2."""

from __future__ import annotations

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend import grids
from mpcompile.frontend.importer import Importer, Source, operator
from mpcompile.frontend.quantizers import finite, per_tensor, quantize_channels, quantizer, scale_of, spacings
from mpcompile.frontend.ranges import real_range
from mpcompile.frontend.values import Constant, QuantizedConstant
from mpcompile.ir.graph import Affine, Quantize, Quantizer
from mpcompile.ir.grid import MAX_BITS
from mpcompile.ir.rounding import rounded

QONNX_ROUNDINGS = {
    "ROUND": "half_even",
    "HALF_EVEN": "half_even",
    "HALF_UP": "half_up",
    "HALF_DOWN": "half_down",
    "CEIL": "ceil",
    "FLOOR": "floor",
    "UP": "up",
    "DOWN": "down",
}
MAX_BIAS_BITS = 32
MAX_ACCUMULATOR_BITS = 16
"""Trunc's input: the most that a grid can have; 8-bit codes summed over a 16×16 window."""


def rounding_mode(node: Source, default: str) -> str:
    mode = node.attribute("rounding_mode", default)
    if mode.upper() not in QONNX_ROUNDINGS:
        raise ModelError(f"{node}: rounding mode {mode}; {', '.join(QONNX_ROUNDINGS)} would be accepted")
    return QONNX_ROUNDINGS[mode.upper()]


def bits_of(imp: Importer, node: Source, index: int) -> int:
    """A bit width input: one whole number, at least 1."""
    given = imp.constant(node, index, "bit width")
    if (given != given.flat[:1]).any() and np.isfinite(given).all():
        raise ModelError(
            f"{node}: bit widths of {given.min():g} to {given.max():g} within one tensor; one for all would be accepted"
        )
    bits = per_tensor(node, given, "bit width")
    if bits != int(bits) or bits < 1:
        raise ModelError(f"{node}: a bit width of {bits:g}; whole numbers from 1 would be accepted")
    if bits > MAX_BIAS_BITS:
        raise ModelError(
            f"{node}: a grid of {bits:g} bits; 1 to {MAX_BITS}, for a bias to {MAX_BIAS_BITS}, would be accepted"
        )
    return int(bits)


def integer_range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """QONNX's least and greatest code. `narrow` takes the least signed or the greatest unsigned one away."""
    if signed:
        return -(1 << (bits - 1)) + narrow, (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow


@operator("IntQuant", "Quant", qonnx=True)
def int_quant(imp: Importer, node: Source):
    """u = round(clamp(x/s + z)); at one signed bit u = ±1, +1 where x ≥ 0."""
    scale, zero, bits = scale_of(imp, node, 1), imp.constant(node, 2, "zero point"), bits_of(imp, node, 3)
    signed, narrow = bool(node.attribute("signed", 1)), bool(node.attribute("narrow", 0))
    rounding = rounding_mode(node, "ROUND")
    if bits == 1 and signed and zero.any():
        raise ModelError(
            f"{node}: one signed bit with a zero point of {zero[zero != 0].flat[0]:g}; 0 would be accepted"
        )
    low, high = integer_range(bits, signed, narrow)
    x = imp.value(node, 0)
    if isinstance(x, (Constant, QuantizedConstant)):
        data = finite(imp, node)
        if bits == 1 and signed:
            return imp.define(node, bipolar_constant(data, scale))
        u = rounded(np.clip(data / scale + zero, low, high), rounding).astype(np.int64)
        return imp.define(node, QuantizedConstant(u, scale, zero, (low, high)))
    zero = per_tensor(node, zero, "zero point")

    def on_grid(spacing: float) -> Quantizer:
        if bits == 1 and signed:
            return bipolar_quantizer(spacing)
        return quantizer(node, spacing, zero, low, high, rounding, True)

    return quantize_channels(imp, node, imp.tensor(node, 0), spacings(node, scale, imp.shape(x)), on_grid)


@operator("BipolarQuant", qonnx=True)
def bipolar_quant(imp: Importer, node: Source):
    """scale where x ≥ 0, else −scale."""
    scale, x = scale_of(imp, node, 1), imp.value(node, 0)
    if isinstance(x, (Constant, QuantizedConstant)):
        return imp.define(node, bipolar_constant(finite(imp, node), scale))
    spacing = spacings(node, scale, imp.shape(x))
    return quantize_channels(imp, node, imp.tensor(node, 0), spacing, bipolar_quantizer)


def bipolar_constant(data: np.ndarray, scale: np.ndarray) -> QuantizedConstant:
    return QuantizedConstant(np.where(data >= 0, 1, -1).astype(np.int64), scale, np.zeros(()), (-1, 1), step=2)


def bipolar_quantizer(scale: float) -> Quantizer:
    """Levels 0 and 1 around a zero of a half, 2·scale apart."""
    return Quantizer(grids.tightest(-1, 1, 2, "bipolar"), 2 * scale, 0.5, 0, "sign")


@operator("Trunc", qonnx=True)
def trunc(imp: Importer, node: Source):
    """Drops low bits of integer sums: y = round(x/s + z), then u = rounding(y/2^t), real value = (u − z')·s'.

    v1 (5 inputs) keeps s' = s and clamps nothing; v2 (6 inputs) has s' of its own, clamps, and t = round(log2(s'/s)).
    Both roundings become Quantize nodes, the first onto the accumulator's grid. In units of the output's scale
    (an Affine by s'/(s·2^t) in front) the two spacings differ by 2^t exactly, so the second rounding is exact.
    """
    scale = per_tensor(node, scale_of(imp, node, 1), "scale")
    zero = per_tensor(node, imp.constant(node, 2, "zero point"), "zero point")
    in_bits, version_2 = bits_of(imp, node, 3), node.count == 6
    out_bits, rounding = bits_of(imp, node, 5 if version_2 else 4), rounding_mode(node, "FLOOR")
    x = imp.tensor(node, 0)
    if zero:
        raise ModelError(f"{node}: a zero point of {zero:g}; 0 would be accepted")
    low_real, high_real = real_range(imp, x)
    if version_2:
        out_scale = per_tensor(node, scale_of(imp, node, 4), "output scale")
        shift = round(np.log2(out_scale / scale))
        low, high = integer_range(out_bits, bool(node.attribute("signed", 1)), bool(node.attribute("narrow", 0)))
    else:
        out_scale, shift = scale, in_bits - out_bits
        if shift < 0:
            raise ModelError(
                f"{node}: from {in_bits} to {out_bits} bits; an output no wider than the input would be accepted"
            )
    # What the accumulator holds: what its producers can reach, which for a range not known is what in_bits says.
    signed = low_real < 0
    reach = integer_range(in_bits, signed, False)
    first = int(np.rint(low_real / scale)) if np.isfinite(low_real) else reach[0]
    last = int(np.rint(high_real / scale)) if np.isfinite(high_real) else reach[1]
    if not version_2:
        low, high = (int(rounded(np.asarray(u / 2.0**shift), rounding)) for u in (first, last))
    unit = out_scale / 2.0**shift
    if unit != scale:
        x = imp.emit(
            Affine(
                imp.unique(f"{node.name}.rescale"),
                [x],
                [imp.unique(f"{node.outputs[0]}.rescaled")],
                np.array([unit / scale]),
                np.zeros(1),
            )
        )
    if first != last:
        whole = quantizer(node, unit, 0.0, first, last, "half_even", True, MAX_ACCUMULATOR_BITS)
        x = imp.emit(
            Quantize(imp.unique(f"{node.name}.sum"), [x], [imp.unique(f"{node.outputs[0]}.sum")], whole),
            quantizer=whole,
        )
    return imp.quantize(node, x, quantizer(node, out_scale, 0.0, low, high, rounding, True))
