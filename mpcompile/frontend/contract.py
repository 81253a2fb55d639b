"""Conv, Gemm and MatMul: with quantized inputs and quantized weights nodes of their own, else float."""

from __future__ import annotations

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend import shuffles
from mpcompile.frontend.importer import Fallback, Importer, Quantized, Source, operator
from mpcompile.frontend.rows import over_rows
from mpcompile.frontend.values import BLOCKED, Activation, Constant, QuantizedConstant, Value
from mpcompile.frontend.windows import window, window_shape
from mpcompile.ir.graph import Conv, Dense


def bias_of(imp: Importer, node: Source, index: int, channels: int) -> np.ndarray | None:
    """Input `index` as float64 [channels], None where there is none. Raises ModelError at another shape."""
    if not node.has(index):
        return None
    bias = imp.real_constant(node, index)
    if bias is None or bias.size not in (1, channels) or not np.isfinite(bias).all():
        raise ModelError(
            f"{node}: a bias that is no constant of {channels} finite values; such a constant would be accepted"
        )
    return np.broadcast_to(bias.reshape(-1), (channels,)).copy()


def no_weights(value: Value) -> Fallback:
    """Why input 1 of a contraction is no quantized constant."""
    return Fallback("its weights are " + ("not quantized" if isinstance(value, Constant) else "computed at run time"))


@operator("Conv")
def conv(imp: Importer, node: Source):
    weight = imp.value(node, 1)
    if not isinstance(weight, QuantizedConstant):
        return no_weights(weight)
    if weight.u.ndim not in (3, 4):
        return Fallback(f"it is over {weight.u.ndim - 2} axes")
    if weight.is_blocked:
        return Fallback(BLOCKED)
    groups = node.attribute("group", 1)
    source = imp.quantized(node, 0, through_pad=True, per_channel=weight.u.shape[1] == 1 and groups > 1)
    made = weight.weight(str(node))
    shuffled = shuffles.channels(imp, node) if groups == 1 else None
    if shuffled is not None:
        x, order = shuffled
        made.q = made.q[:, order] if made.q.shape[1] == len(order) else made.q
        source = Quantized(x, np.ones(1), ((0, 0),) * (made.q.ndim - 2))
    if source is None:
        return imp.not_quantized(node, 0, "its input")
    x, factor, pads_before = source
    if factor.size > 1:  # depthwise: each channel has output channels of its own
        factor = np.repeat(factor, made.q.shape[0] // groups)
    made.scale = factor * made.scale
    channels, *spatial = imp.type(x).shape
    if channels != made.q.shape[1] * groups or made.q.shape[0] % groups:
        raise ModelError(
            f"{node}: weights of shape {list(made.q.shape)} in {groups} groups over {channels} channels do not fit"
        )
    strides, pads, dilations = window(node, [s + a + b for s, (a, b) in zip(spatial, pads_before)], made.q.shape[2:])
    pads = tuple((a + c, b + d) for (a, b), (c, d) in zip(pads, pads_before))
    size = window_shape(spatial, made.q.shape[2:], strides, pads, dilations)
    if min(size) < 1:
        raise ModelError(f"{node}: a kernel of {list(made.q.shape[2:])} does not fit into a map of {list(spatial)}")
    bias = bias_of(imp, node, 2, len(made.q))
    imp.write(
        node,
        Conv(node.name, [x], [node.outputs[0]], made, bias, strides, pads, dilations, groups),
        (len(made.q), *size),
    )


@operator("Gemm")
def gemm(imp: Importer, node: Source):
    weight = imp.value(node, 1)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    if not isinstance(weight, QuantizedConstant):
        return no_weights(weight)
    if node.attribute("transA", 0):
        return Fallback("its input is transposed")
    if node.has(2) and not imp.is_constant(node, 2):
        return Fallback("its bias is computed at run time")
    source = imp.quantized(node, 0)
    if source is None:
        return imp.not_quantized(node, 0, "its input")
    if not node.attribute("transB", 0):
        weight = weight.rearranged(np.transpose)
    bias = bias_of(imp, node, 2, len(weight.u))
    return dense(imp, node, source.tensor, weight, None if bias is None else beta * bias, alpha * source.factor)


@operator("MatMul")
def matmul(imp: Importer, node: Source):
    """x @ W over a vector, or over each of its rows. An Add of a constant that follows stays an Affine."""
    weight, x = imp.value(node, 1), imp.value(node, 0)
    if not isinstance(weight, QuantizedConstant):
        return no_weights(weight)
    if weight.u.ndim != 2:
        return Fallback(f"its weights have {weight.u.ndim} axes")
    source = imp.quantized(node, 0) if isinstance(x, Activation) else None
    if source is None:
        return imp.not_quantized(node, 0, "its input")
    return dense(imp, node, source.tensor, weight.rearranged(np.transpose), None, source.factor)


def dense(
    imp: Importer, node: Source, x: str, weight: QuantizedConstant, bias: np.ndarray | None, factor: np.ndarray
) -> Fallback | None:
    """A Dense of factor·weight [O, I], over each row of x; factor [1]."""
    if weight.is_blocked:
        return Fallback(BLOCKED)
    made = weight.weight(str(node))
    made.scale = factor * made.scale
    *rows, wide = imp.type(x).shape
    if wide != made.q.shape[1]:
        raise ModelError(
            f"{node}: weights for {made.q.shape[1]} inputs over a tensor of shape {list(imp.type(x).shape)}"
        )
    if rows and not imp.type(x).quantizer:
        return Fallback("its input joins tensors of different scales")
    if rows:
        over_rows(imp, node, x, made, bias, node.outputs[0])
        if x in imp.whole:
            imp.whole.add(node.outputs[0])
        return imp.define(node, Activation(node.outputs[0]))
    imp.write(node, Dense(node.name, [x], [node.outputs[0]], made, bias), (len(made.q),))
