"""Pooling, and zero padding in front of a convolution."""

from __future__ import annotations

import math

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Fallback, Importer, Source, operator
from mpcompile.frontend.picking import pick
from mpcompile.frontend.values import Activation
from mpcompile.frontend.windows import window, window_shape
from mpcompile.ir.graph import Affine, Concat, Pooling, Reshape

SCALES = "mpcompile_scales"
"""Attribute of a GlobalAveragePool between codes: their scales before and behind it."""


def pool(imp: Importer, node: Source, x: str, kind: str, kernel, strides, pads, shape, output: str) -> str:
    """Emits a Pooling that writes `output`; a maximum of codes is a code, and that of a concat is a concat of maxima."""
    parts = imp.mixed_parts(x) if kind == "max" else None
    if parts:
        maxima = []
        for i, part in enumerate(parts):
            made = Pooling(
                imp.unique(f"{node.name}.{i}"),
                [part],
                [imp.unique(f"{output}.{i}")],
                kind,
                tuple(kernel),
                tuple(strides),
                tuple(pads),
            )
            maxima.append(imp.emit(made, (imp.type(part).shape[0], *shape[1:]), imp.type(part).quantizer))
        return imp.emit(Concat(node.name, maxima, [output]), shape)
    made = Pooling(node.name, [x], [output], kind, tuple(kernel), tuple(strides), tuple(pads))
    return imp.emit(made, shape, imp.type(x).quantizer if kind == "max" else None)


@operator("MaxPool", "AveragePool")
def windowed(imp: Importer, node: Source):
    x = imp.value(node, 0)
    channels, *spatial = imp.shape(x)[1:]
    kernel = tuple(node.attribute("kernel_shape", ()))
    if len(spatial) not in (1, 2):
        return Fallback(f"it is over {len(spatial)} axes")
    if any(node.outputs[1:]):
        return Fallback("it writes indices, too")
    strides, pads, dilations = window(node, spatial, kernel)
    size = window_shape(spatial, kernel, strides, pads, dilations)
    if node.attribute("ceil_mode", 0):
        up = [
            -(-(s + a + b - (k - 1) * d - 1) // t) + 1
            for s, k, t, (a, b), d in zip(spatial, kernel, strides, pads, dilations)
        ]
        if tuple(up) != size:
            return Fallback("its last window hangs over the border (ceil_mode)")
    average = node.op_type == "AveragePool"
    if any(d != 1 for d in dilations):
        return Fallback("its windows are dilated")
    if average and np.any(pads) and not node.attribute("count_include_pad", 0):
        return Fallback("its averages leave the padding out")
    if any(max(p) >= k for p, k in zip(pads, kernel)):
        return Fallback("its padding is as wide as its windows")
    if min(size) < 1:
        raise ModelError(f"{node}: a kernel of {list(kernel)} does not fit into a map of {spatial}")
    made = pool(
        imp,
        node,
        imp.tensor(node, 0),
        "avg" if average else "max",
        kernel,
        strides,
        pads,
        (channels, *size),
        node.outputs[0],
    )
    imp.define(node, Activation(made, on_grid=None if average else imp.activation(node, 0).on_grid))


@operator("GlobalAveragePool", "GlobalMaxPool")
def whole(imp: Importer, node: Source):
    scales = node.attribute(SCALES, [])
    node.node.attributes.pop(SCALES, None)
    channels, *spatial = imp.shape(imp.value(node, 0))[1:]
    if len(spatial) not in (1, 2):
        return Fallback(f"it is over {len(spatial)} axes")
    factor = rounded_twice(math.prod(spatial), *scales) if scales else 1.0
    output = node.outputs[0] if factor == 1 else imp.unique(f"{node.outputs[0]}.mean")
    made = pool(
        imp,
        node,
        imp.tensor(node, 0),
        "avg" if node.op_type == "GlobalAveragePool" else "max",
        spatial,
        (1,) * len(spatial),
        ((0, 0),) * len(spatial),
        (channels, *[1] * len(spatial)),
        output,
    )
    if factor == 1:
        return imp.define(node, Activation(made))
    imp.write(
        node, Affine(imp.unique(f"{node.name}.factor"), [made], [node.outputs[0]], np.array([factor]), np.zeros(1))
    )


def rounded_twice(count: int, scale: float, to: float) -> float:
    """What the mean of `count` values of `scale` is multiplied by so that in steps of `to` their sum has gone through the
    factor that ONNX Runtime's QLinearGlobalAveragePool takes, scale / (to·count), of which it rounds product and quotient
    to float32 (onnxruntime/core/mlas/lib/qlgavgpool.cpp). 1 where one rounding gives the same, or the scales are none."""
    a, b, n = np.float32(scale), np.float32(to), np.float32(count)
    with np.errstate(all="ignore"):
        theirs, exact = np.float64(a / (b * n)), np.float64(a) / np.float64(b) / count
    if not (np.isfinite(theirs) and theirs > 0 and np.isfinite(exact)) or theirs == np.float32(exact):
        return 1.0
    return float(theirs / exact)


@operator("ReduceMean", "ReduceMax")
def reduce(imp: Importer, node: Source):
    """Over every spatial axis: global pooling."""
    if node.has(1) and not imp.is_constant(node, 1):
        return Fallback("its axes are computed at run time")
    axes = imp.constant(node, 1, "axes", integer=True).tolist() if node.has(1) else node.attribute("axes", None)
    shape = imp.shape(imp.value(node, 0))
    rank = len(shape)
    if axes is None or sorted(a % rank for a in axes) != list(range(2, rank)) or rank not in (3, 4):
        return Fallback("it is over other axes than the spatial ones")
    x, channels, spatial = imp.tensor(node, 0), shape[1], shape[2:]
    keep = node.attribute("keepdims", 1)
    output = node.outputs[0] if keep else imp.unique(f"{node.outputs[0]}.pooled")
    made = pool(
        imp,
        node,
        x,
        "avg" if node.op_type == "ReduceMean" else "max",
        spatial,
        (1,) * len(spatial),
        ((0, 0),) * len(spatial),
        (channels, *[1] * len(spatial)),
        output,
    )
    if keep:
        return imp.define(node, Activation(made))
    flat = Reshape(imp.unique(f"{node.name}.squeeze"), [made], [node.outputs[0]], (channels,))
    imp.write(node, flat, (channels,), imp.type(made).quantizer)


@operator("Pad")
def pad(imp: Importer, node: Source):
    """Zeros around the spatial axes: kept for the convolution that reads it (Importer.quantized), and for others on codes
    where the grid has a 0. Values of the map itself are a view of it."""
    x = imp.value(node, 0)
    if node.attribute("mode", "constant") != "constant":
        return pick(imp, node)
    if not isinstance(x, Activation):
        return Fallback("it pads what is no real tensor")
    if (node.has(1) and not imp.is_constant(node, 1)) or node.has(3):
        return Fallback("its pads are computed at run time, or along axes that it names")
    flat = imp.constant(node, 1, "pads", integer=True).tolist() if node.has(1) else node.attribute("pads", [])
    value = imp.real_constant(node, 2) if node.has(2) else np.array(float(node.attribute("value", 0.0)))
    rank = len(imp.shape(x))
    pads = list(zip(flat[:rank], flat[rank:]))
    if not np.any(flat):
        return imp.define(node, x)
    if len(pads) != rank or value is None or value.any() or np.any(pads[:2]) or min(flat) < 0:
        return Fallback("it pads other axes than the spatial ones, with other values than zeros, or cuts")
    around = tuple((int(a), int(b)) for a, b in pads[2:])
    imp.padded[node.outputs[0]] = (x, around)
    source = imp.quantized(node, 0)
    quantizer = imp.type(source.tensor).quantizer if source and rank in (3, 4) else None
    if source is None or quantizer is None or not quantizer.grid.has_zero or (source.factor != 1).any():
        return Fallback("no convolution on integers takes in all of its zeros")
    shape = tuple(n + a + b for n, (a, b) in zip(imp.type(source.tensor).shape, ((0, 0), *around)))
    ones = (1,) * len(around)
    made = Pooling(node.name, [source.tensor], [node.outputs[0]], "avg", ones, ones, around)  # of windows of one pixel
    imp.define(node, Activation(imp.emit(made, shape), on_grid=quantizer))
