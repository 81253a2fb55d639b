"""FINN's MultiThreshold: out_scale · (how many thresholds x reaches) + out_bias.

Where the thresholds are those of a rounding, the same for all channels, it is a quantizer, which layers take in; that it
is the same one is proved at every threshold, in float32. Any other is counted in float, exactly, and what comes out lies
on a grid.
"""

from __future__ import annotations

import numpy as np
from onnx.helper import make_node

from mpcompile.errors import ModelError
from mpcompile.frontend.floatop import emit_nodes
from mpcompile.frontend.importer import Importer, Source, operator
from mpcompile.frontend.qonnx import bipolar_quantizer
from mpcompile.frontend.quantizers import affine, quantizer
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Quantize, Quantizer
from mpcompile.ir.rounding import rounded

MOST = 255
"""Thresholds of a grid of 8 bits."""
ORDERS = (("half_up", True), ("floor", True), ("half_up", False), ("floor", False))
"""Roundings, and whether the zero point comes before them."""


@operator("MultiThreshold", qonnx=True)
def multi_threshold(imp: Importer, node: Source):
    scale, bias = float(node.attribute("out_scale", 1.0)), float(node.attribute("out_bias", 0.0))
    x = imp.tensor(node, 0)
    shape = (1, *imp.type(x).shape)
    limits = imp.constant(node, 1, "thresholds").astype(np.float32)
    layout = node.attribute("data_layout", "") or "NCHW"
    if len(shape) < 2 or layout not in ("NC", "NCW", "NCHW", "NWC", "NHWC"):
        raise ModelError(f"{node}: data_layout {layout} of {list(shape)}; NC, NCW, NCHW, NWC, NHWC would be accepted")
    axis = len(shape) - 1 if layout.endswith("C") else 1
    if limits.ndim != 2 or limits.shape[0] not in (1, shape[axis]) or not limits.size or np.isnan(limits).any():
        raise ModelError(
            f"{node}: thresholds of shape {list(limits.shape)} over {shape[axis]} channels; [1, T] or "
            f"[{shape[axis]}, T], none of them NaN, would be accepted"
        )
    if not (np.isfinite(scale) and np.isfinite(bias) and scale > 0):
        raise ModelError(
            f"{node}: out_scale {scale:g} and out_bias {bias:g}; finite ones, a scale above 0, would be accepted"
        )
    limits = np.sort(limits, axis=1)
    if (limits == limits[0]).all() and _rounding(imp, node, x, limits[0], scale, bias):
        return None
    count = limits.shape[1]
    counted = imp.unique(f"{node.outputs[0]}.counted")
    along = [1] * (len(shape) + 1)
    along[axis], along[-1] = limits.shape
    nodes = [
        make_node("Unsqueeze", [x, "last"], ["apart"]),
        make_node("GreaterOrEqual", ["apart", "limits"], ["reached"]),
        make_node("Cast", ["reached"], ["ones"], to=1),
        make_node("ReduceSum", ["ones", "last"], ["count"], keepdims=0),
        make_node("Mul", ["count", "scale"], ["scaled"]),
        make_node("Add", ["scaled", "bias"], [counted]),
    ]
    constants = {
        "last": np.array([len(shape)], np.int64),
        "limits": limits.reshape(along),
        "scale": np.full((), scale, np.float32),
        "bias": np.full((), bias, np.float32),
    }
    emit_nodes(imp, f"{node.name}.count", node.op_type, nodes, [x], {counted: shape}, constants)
    zero = _half(-bias / scale)
    if count > MOST or zero is None:
        return imp.define(node, Activation(counted))
    imp.quantize(node, counted, quantizer(node, scale, zero, 0, count, "half_even", True))


def _half(zero: float) -> float | None:
    """The whole or half number that `zero` is, within float32's rounding; None where it is none."""
    near = np.rint(2 * zero) / 2
    return float(near) if abs(near - zero) <= 1e-6 * max(1.0, abs(zero)) else None


def _rounding(imp: Importer, node: Source, x: str, limits: np.ndarray, scale: float, bias: float) -> bool:
    """Output 0 as a quantized tensor, or that by a factor, if there is a quantizer that counts `limits` [T], sorted, and
    whose zero is the file's; whether there is."""
    zero = _half(-bias / scale)
    if zero is None or len(limits) > MOST:
        return False
    if len(limits) == 1:
        if limits[0] != 0 or zero != 0.5:
            return False
        imp.quantize(node, x, bipolar_quantizer(scale / 2))
        return True
    step = (float(limits[-1]) - float(limits[0])) / (len(limits) - 1)
    if not (np.isfinite(step) and step > 0):
        return False
    spacing = scale if np.float32(step) == np.float32(scale) else step
    tried = (quantizer(node, spacing, zero, 0, len(limits), *order) for order in ORDERS)
    made = next((q for q in tried if _counts(q, limits)), None)
    if made is None:
        return False
    if made.spacing == scale:
        imp.quantize(node, x, made)
        return True
    base = imp.unique(f"{node.outputs[0]}.codes")
    quantized = imp.emit(Quantize(imp.unique(f"{node.name}.codes"), [x], [base], made), quantizer=made)
    factor = np.array([scale / step])
    imp.define(node, Activation(affine(imp, node, quantized, "real", factor), scaled=(quantized, factor)))
    return True


def _counts(made: Quantizer, limits: np.ndarray) -> bool:
    """Whether its level is the number of limits that a float32 reaches. Both grow with it, so that it is enough to look at
    each limit and at the number before it."""
    before = np.nextafter(limits, np.float32(-np.inf))
    for numbers in (limits, before):
        reached = np.searchsorted(limits, numbers, "right")
        steps, zero = numbers / np.float32(made.spacing), np.float32(made.zero)
        if made.zero_first:
            level = rounded(np.clip(steps + zero, 0, len(limits)), made.rounding)
        else:
            level = np.clip(rounded(steps, made.rounding) + zero, 0, len(limits))
        if not np.array_equal(level, reached):
            return False
    return True
