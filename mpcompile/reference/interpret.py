"""What a normalised graph means in real numbers, as outside executors compute it: the oracle for imports and for the
fuse pass.

Every tensor is float32; a quantized one holds its real values scale·q. Sums are taken in float64 and rounded once,
which is at least as near the real value as any order of float32 sums; quantizers divide in float32, as qonnx and ONNX
Runtime do. This is NOT the exact definition that kernels equal bit for bit: that is run.py's, of the graph of layers.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.graph import (
    Add,
    Affine,
    Clip,
    Concat,
    Conv,
    Dense,
    FloatOp,
    Graph,
    Interpolate,
    Larger,
    Mul,
    Node,
    Pooling,
    PRelu,
    Quantize,
    Quantizer,
    Rearrange,
    Reshape,
    Smaller,
    Smooth,
    Table,
    TensorType,
    Transpose,
    View,
)
from mpcompile.ir.rounding import rounded
from mpcompile.reference import smooth
from mpcompile.reference.float_op import run_float_op
from mpcompile.reference.ops import interpolate


def interpret(
    graph: Graph, inputs: dict[str, np.ndarray], given: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Every tensor of the graph by name, float32, without batch axis. `inputs` have the shapes of graph.types.

    `given`: tensors that are read with these values instead of the computed ones, which are returned all the same (to
    feed each layer what another executor computed, so that one flipped rounding does not spread). Raises UsageError at
    a missing input or a wrong shape.
    """
    given = given or {}
    tensors: dict[str, np.ndarray] = {}
    for name in graph.inputs:
        if name not in inputs:
            raise UsageError(f"input {name} is missing; given: {', '.join(inputs) or 'none'}")
        shape = np.shape(inputs[name])
        if shape != graph.types[name].shape:
            raise UsageError(f"input {name} has shape {list(shape)}, not {list(graph.types[name].shape)}")
        tensors[name] = np.asarray(inputs[name], np.float32)
    for node in graph.nodes:
        read = [np.asarray(given.get(t, tensors[t]), np.float32) for t in node.inputs]
        if isinstance(node, FloatOp):
            tensors.update(zip(node.outputs, run_float_op(node, read)))
        else:
            tensors[node.outputs[0]] = compute(node, read, [graph.types[t] for t in node.inputs])
    return tensors


def compute(node: Node, read: list[np.ndarray], of: list[TensorType]) -> np.ndarray:
    """float32: any node but a FloatOp over float32 arrays, whose types are `of`."""
    match node:
        case Quantize(quantizer=quantizer):
            return quantize(read[0], quantizer, of[0])
        case Table(values=values):
            return looked_up(read[0], values, of[0])
        case Smooth(function=function, parameters=parameters):
            return smooth.evaluate(function, read[0], parameters)
        case Interpolate(lines=lines, columns=columns):
            return interpolate(np.asarray(read[0], np.float32), lines, columns)
    return np.asarray(evaluate(node, read)).astype(np.float32)


def codes(values: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    """Real values of a quantized tensor to q, int64. Raises ValueError at a value that is not on the grid."""
    q = np.rint(np.asarray(values, np.float64) / quantizer.scale).astype(np.int64)
    quantizer.grid.level(q)
    return q


def looked_up(x: np.ndarray, values: np.ndarray, of: TensorType) -> np.ndarray:
    """float32: what `values` has for each level of the quantized tensor x. Raises ValueError where x is on no grid."""
    if of.quantizer is None:
        raise ValueError("a table reads a tensor that is on no grid")
    return np.asarray(values, np.float32)[of.quantizer.grid.level(codes(x, of.quantizer))]


def quantize(x: np.ndarray, quantizer: Quantizer, of: TensorType) -> np.ndarray:
    """float32 to the nearest values of the quantizer's grid as its rounding says; real values, float32.

    What is on a grid already is requantized in float64, so that values meant to be ties, or whole, are.
    """
    grid, zero = quantizer.grid, quantizer.zero
    if of.quantizer:
        steps = codes(x, of.quantizer) * of.quantizer.scale / quantizer.spacing
    else:
        steps = np.asarray(x, np.float32) / np.float32(quantizer.spacing)
    if quantizer.rounding == "sign":
        level = rounded(steps, "sign").astype(np.int64)
    else:
        last = quantizer.umin + grid.levels - 1
        if quantizer.zero_first:
            u = rounded(np.clip(steps + steps.dtype.type(zero), quantizer.umin, last), quantizer.rounding)
        else:
            u = np.clip(rounded(steps, quantizer.rounding) + zero, quantizer.umin, last)
        level = u.astype(np.int64) - quantizer.umin
    return (grid.value(level) * quantizer.scale).astype(np.float32)


def evaluate(node: Node, read: list[np.ndarray]) -> np.ndarray:
    """One node over float32 arrays, in float64. Raises ModelError at a node that is no operator of a normalised
    graph."""
    x = read[0].astype(np.float64)
    match node:
        case Conv():
            return convolve(x, node)
        case Dense(weight=weight, bias=bias):
            y = (weight.q @ x) * weight.scale
            return y if bias is None else y + bias
        case Affine(a=a, b=b):
            return along_channels(a, x) * x + along_channels(b, x)
        case Clip(lo=lo, hi=hi):
            return np.clip(x, np.float32(lo), np.float32(hi))
        case PRelu(slope=slope):
            return np.where(x >= 0, x, along_channels(slope, x) * x)
        case Add():
            return x + read[1].astype(np.float64)
        case Mul():
            return x * read[1].astype(np.float64)
        case Larger():
            return np.maximum(x, read[1])
        case Smaller():
            return np.minimum(x, read[1])
        case View(along=along):
            return x[np.ix_(*(a.indices() for a in along))]
        case Rearrange(order=order, whole=whole, along=along):
            return x.reshape(-1)[order.indices()].reshape(whole)[np.ix_(*(a.indices() for a in along))]
        case Concat():
            return np.concatenate(read)
        case Pooling():
            return pool(x, node)
        case Reshape(shape=shape):
            return x.reshape(shape)
        case Transpose(perm=perm):
            return x.transpose(perm)
    raise ModelError(f"node {node.name} ({node.op}) is no operator of a normalised graph")


def along_channels(constant: np.ndarray, x: np.ndarray) -> np.ndarray:
    """float64 [C] or [1] shaped to broadcast along axis 0 of x."""
    return constant.reshape(-1, *[1] * (x.ndim - 1)) if x.ndim else constant.reshape(())


def windows(x: np.ndarray, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]) -> np.ndarray:
    """(C, *spatial) to (C, *output, *kernel), a view."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations))
    n = len(kernel)
    view = sliding_window_view(x, reach, tuple(range(1, n + 1)))
    return view[(slice(None), *(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))]


def convolve(x: np.ndarray, node: Conv) -> np.ndarray:
    """float64 [O, *output]."""
    weight, groups = node.weight, node.groups
    out, per_group, *kernel = weight.q.shape
    view = windows(np.pad(x, ((0, 0), *node.pads)), tuple(kernel), node.strides, node.dilations)
    n = len(kernel)
    size = view.shape[1 : 1 + n]
    columns = view.reshape(groups, per_group, *size, *kernel)
    columns = np.moveaxis(columns, range(2, 2 + n), range(2 + n, 2 + 2 * n)).reshape(
        groups, per_group * int(np.prod(kernel)), -1
    )
    y = weight.q.reshape(groups, out // groups, -1).astype(np.float64) @ columns
    y = y.reshape(out, *size) * along_channels(weight.scale, x)
    return y if node.bias is None else y + along_channels(node.bias, x)


def pool(x: np.ndarray, node: Pooling) -> np.ndarray:
    """float64 [C, *output]."""
    fill = -np.inf if node.kind == "max" else 0.0
    view = windows(
        np.pad(x, ((0, 0), *node.pads), constant_values=fill), node.kernel, node.strides, (1,) * len(node.kernel)
    )
    axes = tuple(range(-len(node.kernel), 0))
    return view.max(axes) if node.kind == "max" else view.mean(axes)
