"""ConvInteger and MatMulInteger: sums of products of codes less their zero points.

    ConvInteger(u, w, z, z_w) =  Σ (u − z)·(w − z_w)  =  Σ u·(w − z_w)  −  z·Σ (w − z_w)

With a zero point of run time (dynamic.py) the first sum is a contraction of codes on a fixed grid, 0 to 255, by integer
weights; the second is a constant for each output channel, times z. So the work is an integer layer's; what depends on z
runs in float, exactly while a sum stays below 2^24. With a constant zero point all of it is an integer layer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from onnx.helper import make_node

from mpcompile.errors import ModelError
from mpcompile.frontend.dynamic import LAST, write_codes
from mpcompile.frontend.floatop import emit_nodes
from mpcompile.frontend.importer import Importer, Source, operator
from mpcompile.frontend.quantizers import affine, quantizer
from mpcompile.frontend.rows import over_rows
from mpcompile.frontend.values import Codes, Constant, DynamicCodes, IntegerInput, QuantizedConstant
from mpcompile.frontend.windows import window, window_shape
from mpcompile.ir.graph import Conv, Dense, Quantize, Quantizer


class Contraction(NamedTuple):
    """The quantized tensor that is contracted (with its borders, if `padded`), a factor for the weights' scale, and what
    is to be taken from the sum: `zero` times each output channel's sum of weights."""

    tensor: str
    factor: float = 1.0
    zero: str = ""
    padded: bool = False


def weights_of(imp: Importer, node: Source) -> QuantizedConstant:
    """Input 1, less its zero point, in units of 1. Raises ModelError where one of the two is computed at run time."""
    value, zero = imp.value(node, 1), imp.optional(node, 3)
    if not isinstance(value, Constant) or not (zero is None or isinstance(zero, Constant)):
        raise ModelError(f"{node}: weights or their zero point are computed at run time; constants would be accepted")
    u = value.array.astype(np.int64)
    z = np.zeros(1, np.int64) if zero is None else zero.array.astype(np.int64).reshape(-1)
    rows = node.op_type == "ConvInteger"  # output channels: axis 0, of a product of matrices the last
    if z.size not in (1, u.shape[0 if rows else -1]):
        raise ModelError(
            f"{node}: {z.size} zero points of weights of {list(u.shape)}; one for each channel would be accepted"
        )
    along = z.reshape(-1, *[1] * (u.ndim - 1)) if rows else z
    return QuantizedConstant(u, np.ones(()), along)


def contracted(imp: Importer, node: Source, pads: Sequence = ()) -> Contraction:
    """Input 0. `pads`: real zeros (before, after) per spatial axis, which are code z: those of a dynamic quantizer are put
    around what it reads. Raises ModelError at codes that no quantizer wrote, and at another zero point than its own."""
    value, zero = imp.value(node, 0), imp.optional(node, 2)
    accepted = "the one of the quantizer in front would be accepted"
    if isinstance(value, DynamicCodes):
        if not isinstance(zero, IntegerInput) or zero.tensor != value.zero:
            raise ModelError(f"{node}: a zero point of something else than its codes; {accepted}")
        return _dynamic(imp, node, value, pads)
    if zero is not None and (not isinstance(zero, Constant) or zero.array.size != 1):
        raise ModelError(f"{node}: a zero point that is no constant of one value; {accepted}")
    offset = 0 if zero is None else int(zero.array.reshape(()))
    if isinstance(value, Codes):
        if value.spacing.size > 1 or value.zero != offset:
            raise ModelError(
                f"{node}: zero point {offset} where {value.node} has {value.zero} and {value.spacing.size} scales; "
                f"{accepted}"
            )
        made = quantizer(node, value.spacing[0], value.zero, value.low, value.high, "half_even", False)
        return Contraction(_quantized(imp, node, value.tensor, f"{value.node}.on_grid", made), 1 / value.spacing[0])
    if isinstance(value, IntegerInput):
        low, high = (-128, 127) if imp.dtype(node, 0) == "INT8" else (0, LAST)
        real = affine(imp, node, value.tensor, "real", np.ones(1), -np.full(1, float(offset)))
        made = quantizer(node, 1.0, offset, low, high, "half_even", False)
        return Contraction(_quantized(imp, node, real, f"{node.name}.on_grid", made))
    raise ModelError(f"{node}: codes that no quantizer wrote; DynamicQuantizeLinear in front would be accepted")


def _dynamic(imp: Importer, node: Source, value: DynamicCodes, pads: Sequence) -> Contraction:
    """The codes as a quantized tensor, made once for all that read them with these pads around."""
    tensor = value.tensor
    if np.any(pads):
        tensor = f"{value.tensor}.{'.'.join(f'{a}_{b}' for a, b in pads)}"
        if tensor not in imp.writers:
            write_codes(imp, node, tensor, value.source, value.scale, value.zero, pads)
    made = quantizer(node, 1.0, 0.0, 0, LAST, "half_even", False)
    return Contraction(_quantized(imp, node, tensor, f"{tensor}.on_grid", made), 1.0, value.zero, bool(np.any(pads)))


def _quantized(imp: Importer, node: Source, tensor: str, name: str, made: Quantizer) -> str:
    if name not in imp.writers:
        imp.emit(Quantize(imp.unique(name), [tensor], [name], made), quantizer=made)
    return name


def _finish(imp: Importer, node: Source, sums: str, zero: str, rows: np.ndarray) -> None:
    """Output 0: `sums`, float32, less `zero` times `rows`, which broadcasts to them."""
    if zero:
        output = node.outputs[0]
        nodes = [make_node("Mul", [zero, "rows"], ["less"]), make_node("Sub", [sums, "less"], [output])]
        shape, constants = (1, *imp.type(sums).shape), {"rows": rows.astype(np.float32)}
        emit_nodes(imp, f"{node.name}.less", node.op_type, nodes, [sums, zero], {output: shape}, constants)
        sums = output
    imp.define(node, IntegerInput(sums), "INT32")


@operator("ConvInteger")
def conv_integer(imp: Importer, node: Source):
    weight = weights_of(imp, node).weight(str(node))
    groups, kernel = node.attribute("group", 1), weight.q.shape[2:]
    _, channels, *spatial = imp.shape(imp.value(node, 0))
    if len(kernel) not in (1, 2) or channels != weight.q.shape[1] * groups or weight.q.shape[0] % groups:
        raise ModelError(
            f"{node}: weights of shape {list(weight.q.shape)} in {groups} groups over a map of {[channels, *spatial]}; "
            "one or two spatial axes, and channels that fit, would be accepted"
        )
    strides, pads, dilations = window(node, spatial, kernel)
    size = window_shape(spatial, kernel, strides, pads, dilations)
    if min(size) < 1:
        raise ModelError(f"{node}: a kernel of {list(kernel)} does not fit into a map of {spatial}")
    source = contracted(imp, node, pads)
    pads = ((0, 0),) * len(kernel) if source.padded else pads
    weight.scale = weight.scale * source.factor
    sums = imp.unique(f"{node.outputs[0]}.sums") if source.zero else node.outputs[0]
    made = Conv(node.name, [source.tensor], [sums], weight, None, strides, pads, dilations, groups)
    imp.emit(made, (len(weight.q), *size))
    rows = weight.q.reshape(len(weight.q), -1).sum(1).reshape(1, -1, *[1] * len(kernel))
    _finish(imp, node, sums, source.zero, rows)


@operator("MatMulInteger")
def matmul_integer(imp: Importer, node: Source):
    """Over a vector a Dense; over rows of one a convolution of kernel 1, the rows its positions."""
    constant = weights_of(imp, node)
    if constant.u.ndim != 2:
        raise ModelError(f"{node}: weights of {constant.u.ndim} axes; 2 would be accepted")
    weight = constant.rearranged(np.transpose).weight(str(node))
    source = contracted(imp, node)
    weight.scale = weight.scale * source.factor
    *rows, wide = imp.type(source.tensor).shape
    outputs = len(weight.q)
    if wide != weight.q.shape[1]:
        raise ModelError(f"{node}: weights for {weight.q.shape[1]} inputs over a tensor of shape {[*rows, wide]}")
    sums = imp.unique(f"{node.outputs[0]}.sums") if source.zero else node.outputs[0]

    if not rows:
        imp.emit(Dense(node.name, [source.tensor], [sums], weight), (outputs,))
    else:
        over_rows(imp, node, source.tensor, weight, None, sums)
    _finish(imp, node, sums, source.zero, weight.q.reshape(outputs, -1).sum(1).reshape((1,) * (len(rows) + 1) + (-1,)))
