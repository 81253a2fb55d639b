"""What the operators of Relay and Relax are in ONNX, in the forms that a region takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mpcompile.tvm_frontend.dataflow import Call, NotMatched, Value, known, scalar
from mpcompile.tvm_frontend.write import Writer, operator

QUANTIZERS = ("dequantize", "int_quant", "fake_quantize")
MOVES = ("reshape", "permute_dims", "squeeze", "expand_dims", "layout_transform")
"""Operators that only move values."""


def quantized_weights(value: Value) -> None:
    """Raises NotMatched unless it is a quantized constant."""
    if not value.constant:
        raise NotMatched(
            "its weights are computed at run time"
            if value.call
            else "its weights are a parameter: bind the parameters before the pass"
        )
    while value.call is not None and value.call.op in MOVES:
        value = value.call.inputs[0]
    if value.call is None or value.call.op not in QUANTIZERS:
        raise NotMatched("its weights are not quantized")


def pads(given, axes: int) -> list[int]:
    """TVM's padding as ONNX's: before all axes, then after them."""
    given = [int(p) for p in given]
    if len(given) == 1:
        given *= 2 * axes
    if len(given) == axes:
        given = [*given, *given]
    if len(given) != 2 * axes:
        raise NotMatched(f"it has {len(given)} paddings over {axes} axes")
    return given


def to_channels_first(writer: Writer, value: Value, layout: str) -> str:
    """Its name, transposed where it has channels last."""
    if layout in ("NHWC", "NWC"):
        rank = len(layout)
        return writer.node("Transpose", [value], perm=[0, rank - 1, *range(1, rank - 1)])
    if layout not in ("NCHW", "NCW"):
        raise NotMatched(f"its layout is {layout}; NCHW, NHWC, NCW and NWC are matched")
    return writer.name(value)


def from_channels_first(writer: Writer, name: str, layout: str, output: Value) -> None:
    """The counterpart, for a result."""
    if layout in ("NHWC", "NWC"):
        rank = len(layout)
        writer.node("Transpose", [name], output, perm=[0, *range(2, rank), 1])
    else:
        writer.node("Identity", [name], output)


def channels_first(writer: Writer, call: Call, layout: str, op_type: str, inputs: list, **attrs: Any) -> None:
    """A node over a map in any layout: input 0 and the output are transposed where channels are last."""
    x = to_channels_first(writer, call.inputs[0], layout)
    if layout in ("NCHW", "NCW"):
        writer.node(op_type, [x, *inputs], call.output, **attrs)
    else:
        made = writer.node(op_type, [x, *inputs], **attrs)
        from_channels_first(writer, made, layout, call.output)


KERNELS = {"OIHW": (0, 1, 2, 3), "HWIO": (3, 2, 0, 1), "OHWI": (0, 3, 1, 2), "OIW": (0, 1, 2), "WIO": (2, 1, 0)}


@operator("nn.conv2d", "nn.conv1d")
def conv(writer: Writer, call: Call) -> None:
    quantized_weights(call.inputs[1])
    at, axes = call.attrs, 2 if call.op == "nn.conv2d" else 1
    layout, kernel_layout = str(at["data_layout"]), str(at["kernel_layout"])
    if str(at.get("out_layout") or layout) != layout or str(at.get("out_dtype") or "float32") not in (
        "float32",
        "void",
        "",
    ):
        raise NotMatched("its result has another layout or type than its input")
    if kernel_layout not in KERNELS:
        raise NotMatched(f"its weights' layout is {kernel_layout}; {', '.join(KERNELS)} are matched")
    weights: Value | str = call.inputs[1]
    if KERNELS[kernel_layout] != tuple(range(axes + 2)):
        weights = writer.node("Transpose", [weights], perm=list(KERNELS[kernel_layout]))
    channels_first(
        writer,
        call,
        layout,
        "Conv",
        [weights],
        strides=ints(at["strides"], axes),
        pads=pads(at["padding"], axes),
        dilations=ints(at["dilation"], axes),
        group=int(at["groups"]),
    )


def ints(given, axes: int) -> list[int]:
    given = [int(i) for i in (given if isinstance(given, (tuple, list)) else [given])]
    return given * axes if len(given) == 1 else given


@operator("nn.dense")
def dense(writer: Writer, call: Call) -> None:
    """x [N, I] · wᵀ, w [O, I]."""
    quantized_weights(call.inputs[1])
    writer.node("Gemm", call.inputs, call.output, transB=1)


@operator("matmul")
def matmul(writer: Writer, call: Call) -> None:
    quantized_weights(call.inputs[1])
    writer.node("MatMul", call.inputs, call.output)


@operator("permute_dims")
def permute(writer: Writer, call: Call) -> None:
    rank = len(call.inputs[0].shape)
    axes = call.attrs.get("axes") or tuple(range(rank))[::-1]
    writer.node("Transpose", [call.inputs[0]], call.output, perm=[int(a) % rank for a in axes])


@operator("nn.bias_add")
def bias_add(writer: Writer, call: Call) -> None:
    rank = len(call.inputs[0].shape)
    axis = int(call.attrs.get("axis", 1)) % rank
    bias: Value | str = call.inputs[1]
    if axis != rank - 1:
        shape = [1] * (rank - axis)
        shape[0] = -1
        bias = writer.node("Reshape", [bias, writer.constant(np.array(shape, np.int64))])
    writer.node("Add", [call.inputs[0], bias], call.output)


BINARY = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div"}


@operator(*BINARY)
def binary(writer: Writer, call: Call) -> None:
    real(call)
    writer.node(BINARY[call.op], call.inputs, call.output)


@operator("maximum", "minimum")
def bound(writer: Writer, call: Call) -> None:
    """Of real values or codes, with a constant."""
    x, limit = call.inputs if scalar(call.inputs[0]) is None else call.inputs[::-1]
    if (value := scalar(limit)) is None:
        raise NotMatched("it compares two tensors")
    name = writer.constant(np.array(value, x.dtype))
    writer.node("Clip", [x, name] if call.op == "maximum" else [x, "", name], call.output)


def real(call: Call) -> None:
    if any(v.dtype != "float32" for v in (*call.inputs, *call.outputs)):
        raise NotMatched("it is of another type than float32")


UNARY = {
    "nn.relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "exp": "Exp",
    "sqrt": "Sqrt",
    "negative": "Neg",
    "abs": "Abs",
    "nn.gelu": "Gelu",
    "erf": "Erf",
}


@operator(*UNARY)
def unary(writer: Writer, call: Call) -> None:
    real(call)
    writer.node(UNARY[call.op], call.inputs[:1], call.output)


@operator("nn.silu")
def silu(writer: Writer, call: Call) -> None:
    real(call)
    gate = writer.node("Sigmoid", [call.inputs[0]])
    writer.node("Mul", [call.inputs[0], gate], call.output)


@operator("nn.leaky_relu", "nn.leakyrelu")
def leaky(writer: Writer, call: Call) -> None:
    real(call)
    writer.node("LeakyRelu", [call.inputs[0]], call.output, alpha=float(call.attrs["alpha"]))


@operator("nn.prelu")
def prelu(writer: Writer, call: Call) -> None:
    real(call)
    rank = len(call.inputs[0].shape)
    axis = int(call.attrs.get("axis", 1)) % rank
    if not call.inputs[1].constant:
        raise NotMatched("its slope is computed at run time")
    along = writer.constant(np.array([-1, *[1] * (rank - axis - 1)], np.int64))
    writer.node("PRelu", [call.inputs[0], writer.node("Reshape", [call.inputs[1], along])], call.output)


@operator("clip")
def clip(writer: Writer, call: Call) -> None:
    """Of real values, or of codes."""
    x = call.inputs[0]
    dtype = np.dtype(x.dtype)
    bounds = [float(call.attrs["min"]), float(call.attrs["max"])]
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        bounds = [math.ceil(max(bounds[0], limits.min)), math.floor(min(bounds[1], limits.max))]
    elif x.dtype != "float32":
        raise NotMatched(f"it is of {x.dtype}")
    writer.node("Clip", [x, *(writer.constant(np.array(b, dtype)) for b in bounds)], call.output)


@operator("nn.batch_norm")
def batch_norm(writer: Writer, call: Call) -> None:
    real(call)
    if any(not v.constant for v in call.inputs[1:]):
        raise NotMatched("its statistics are computed at run time, or are parameters: bind them before the pass")
    if call.attrs.get("training"):
        raise NotMatched("it is of a training")
    rank, axis = len(call.inputs[0].shape), int(call.attrs.get("axis", 1))
    if axis % rank != 1:
        raise NotMatched(f"its channels are in axis {axis}, not 1")
    inputs = list(call.inputs)
    for flag, index, neutral in (("scale", 1, 1.0), ("center", 2, 0.0)):
        if not call.attrs.get(flag, True):
            size = known(inputs[index].shape)
            inputs[index] = Value(size, "float32", np.full(size, neutral, np.float32))
    writer.node("BatchNormalization", inputs, call.output, epsilon=float(call.attrs["epsilon"]))


POOLS = {
    "nn.max_pool2d": ("MaxPool", 2),
    "nn.avg_pool2d": ("AveragePool", 2),
    "nn.max_pool1d": ("MaxPool", 1),
    "nn.avg_pool1d": ("AveragePool", 1),
}


@operator(*POOLS)
def pool(writer: Writer, call: Call) -> None:
    real(call)
    at, (op_type, axes) = call.attrs, POOLS[call.op]
    counts = {"count_include_pad": int(at.get("count_include_pad", 0))} if op_type == "AveragePool" else {}
    dilation = at.get("dilation", 1)
    if any(d != 1 for d in ints(dilation, axes)):
        raise NotMatched("its windows are dilated")
    channels_first(
        writer,
        call,
        str(at["layout"]),
        op_type,
        [],
        kernel_shape=ints(at["pool_size"], axes),
        strides=ints(at["strides"], axes),
        pads=pads(at["padding"], axes),
        ceil_mode=int(at.get("ceil_mode", 0)),
        **counts,
    )


@operator("nn.global_avg_pool2d", "nn.global_max_pool2d", "nn.adaptive_avg_pool2d", "nn.adaptive_avg_pool1d")
def global_pool(writer: Writer, call: Call) -> None:
    real(call)
    layout = str(call.attrs["layout"])
    size = call.attrs.get("output_size") or ()
    size = size if isinstance(size, (tuple, list)) else (size,)
    if call.op.startswith("nn.adaptive") and (not size or any(int(n) != 1 for n in size)):
        raise NotMatched("it averages over more than one window")
    channels_first(writer, call, layout, "GlobalMaxPool" if "max" in call.op else "GlobalAveragePool", [])


@operator("mean", "max")
def reduce(writer: Writer, call: Call) -> None:
    real(call)
    rank = len(call.inputs[0].shape)
    axis = call.attrs.get("axis")
    axes = [
        int(a) % rank
        for a in (axis if isinstance(axis, (tuple, list)) else [axis] if axis is not None else range(rank))
    ]
    if call.attrs.get("exclude"):
        axes = [a for a in range(rank) if a not in axes]
    if 0 in axes:
        raise NotMatched("it is over the batch")
    name = writer.constant(np.array(axes, np.int64))
    op_type = "ReduceMean" if call.op == "mean" else "ReduceMax"
    writer.node(op_type, [call.inputs[0], name], call.output, keepdims=int(call.attrs.get("keepdims", 0)))


@operator("reshape", "nn.batch_flatten", "squeeze", "expand_dims")
def reshape(writer: Writer, call: Call) -> None:
    """By the shape of the result; a batch that is not known is that of the input."""
    before, after = call.inputs[0].shape, call.output.shape
    sizes = [
        0 if i == 0 and before and size == before[0] and not isinstance(size, int) else size
        for i, size in enumerate(after)
    ]
    if any(not isinstance(size, int) for size in sizes):
        raise NotMatched("its sizes are known only when it runs")
    writer.node("Reshape", [call.inputs[0], writer.constant(np.array(sizes, np.int64))], call.output)


@operator("concat")
def concat(writer: Writer, call: Call) -> None:
    real(call)
    rank = len(call.output.shape)
    writer.node("Concat", call.inputs, call.output, axis=int(call.attrs.get("axis") or 0) % rank)


@operator("nn.pad")
def pad(writer: Writer, call: Call) -> None:
    real(call)
    if str(call.attrs.get("pad_mode", "constant")) != "constant":
        raise NotMatched(f"it pads by {call.attrs['pad_mode']}")
    widths = np.array(call.attrs["pad_width"], np.int64).reshape(-1, 2)
    value = scalar(call.inputs[1]) if len(call.inputs) > 1 else float(call.attrs.get("pad_value", 0.0))
    if value is None:
        raise NotMatched("what it pads with is computed at run time")
    names = writer.constant(widths.T.reshape(-1)), writer.constant(np.array(value, np.float32))
    writer.node("Pad", [call.inputs[0], *names], call.output)


@operator("nn.dropout", "copy", "annotation.stop_fusion")
def identity(writer: Writer, call: Call) -> None:
    """As it is when a network is used, not trained."""
    writer.node("Identity", call.inputs[:1], call.output)
