"""BatchNormalization, arithmetic with constants, activations, Add, Concat; what merely passes its input on."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from mpcompile.errors import ModelError
from mpcompile.frontend import grids, shuffles
from mpcompile.frontend.importer import UNQUANTIZED, Fallback, Importer, Source, operator
from mpcompile.frontend.picking import spread
from mpcompile.frontend.ranges import real_range
from mpcompile.frontend.rows import affine_of_columns, in_layers, of_layers
from mpcompile.frontend.values import Activation, Codes, Constant, IntegerInput, QuantizedConstant
from mpcompile.ir.graph import Add, Affine, Clip, Concat, Larger, Mul, PRelu, Quantizer, Smaller

NOT_AFFINE = Fallback("none of its inputs is a constant for each channel")
BROADCAST = Fallback("its inputs have different shapes, and none is a constant for each channel")


def per_channel(constant: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant that broadcasts to `shape` (batch in front) along the channels only, as float64 [C] or [1]; else
    None."""
    if constant is None or constant.ndim > len(shape):
        return None
    full = (1,) * (len(shape) - constant.ndim) + constant.shape
    channels = full[1] if len(full) > 1 else 1
    if int(np.prod(full)) != channels or channels not in (1, shape[1] if len(shape) > 1 else 1):
        return None
    return constant.reshape(-1).astype(np.float64)


def per_column(constant: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The same along the last axis, of rows."""
    if constant is None or not constant.ndim or len(shape) < 3 or constant.ndim > len(shape):
        return None
    return constant.reshape(-1).astype(np.float64) if constant.size == constant.shape[-1] == shape[-1] else None


class Operand(NamedTuple):
    """Which input is the tensor, and the constant beside it, float64 [C] or [1]; `of_columns`: [F], of the last axis."""

    index: int
    constant: np.ndarray
    of_columns: bool = False


def affine(imp: Importer, node: Source, index: int, a: np.ndarray, b: np.ndarray, of_columns: bool = False):
    """a·x + b of input `index`. One factor over a quantized tensor is remembered, for a contraction to take in."""
    x = imp.tensor(node, index)
    channels = (imp.type(x).shape or (1,))[-1 if of_columns else 0]
    if any(c.size not in (1, channels) for c in (a, b)):
        raise ModelError(f"{node}: {max(a.size, b.size)} constants for {channels} channels")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ModelError(f"{node}: a constant that is not finite; finite ones would be accepted")
    if of_columns:
        affine_of_columns(imp, node, x, a, b)
        return imp.define(node, Activation(node.outputs[0]))
    imp.write(node, Affine(node.name, [x], [node.outputs[0]], a, b))
    if a.size == 1 and a[0] and not b.any():
        source = imp.quantized(node, index)
        if source:
            imp.define(node, Activation(node.outputs[0], scaled=(source.tensor, source.factor * a)))


@operator("BatchNormalization")
def batch_normalization(imp: Importer, node: Source):
    gamma, beta, mean, var = (imp.real_constant(node, i) for i in range(1, 5))
    if any(p is None for p in (gamma, beta, mean, var)):
        return Fallback("its parameters are computed at run time")
    if node.attribute("training_mode", 0):
        raise ModelError(f"{node}: in training mode; a model exported for inference would be accepted")
    with np.errstate(all="ignore"):  # what comes out not finite is refused below, by name
        a = gamma / np.sqrt(var + node.attribute("epsilon", 1e-5))
    affine(imp, node, 0, a, beta - mean * a)


def split(imp: Importer, node: Source) -> Operand | None:
    """The tensor of a two-input operator whose other input is a constant for each channel, or for each column of rows that
    layers compute; else None."""
    for index in (0, 1):
        x = imp.value(node, index)
        if not imp.is_constant(node, 1 - index) or not isinstance(x, Activation):
            continue
        real, shape = imp.real_constant(node, 1 - index), imp.shape(x)
        constant = per_channel(real, shape)
        if constant is not None:
            return Operand(index, constant)
        constant = per_column(real, shape)
        return Operand(index, constant, True) if constant is not None and of_layers(imp, x.tensor) else None
    return None


@operator("Add", "Sum")
def add(imp: Importer, node: Source):
    if node.count != 2:
        return Fallback(f"it is a sum of {node.count}")
    parts = split(imp, node)
    if parts:
        return affine(imp, node, parts.index, np.ones(1), parts.constant, parts.of_columns)
    return pointwise(imp, node, Add)


def pointwise(
    imp: Importer, node: Source, made: type[Add] | type[Larger] | type[Mul] | type[Smaller], sign: float = 1.0
):
    """Of two tensors, the second times `sign`; a value for each channel, or for each pixel, is spread over the map. A
    Fallback where they fit otherwise, or are no maps, or of what is on no grid and no layer computes."""
    x, y = imp.value(node, 0), imp.value(node, 1)
    if not (isinstance(x, Activation) and isinstance(y, Activation)):
        return NOT_AFFINE
    shapes = imp.type(x.tensor).shape, imp.type(y.tensor).shape
    quantized = [imp.quantized(node, i) is not None for i in (0, 1)]
    if max(len(s) for s in shapes) > 3:
        return Fallback("its inputs have more axes than a map")
    layered = all(in_layers(imp, t) for t in (x.tensor, y.tensor)) or (made is Add and shapes[0] == shapes[1])
    if not any(quantized) and not layered:
        return UNQUANTIZED if shapes[0] == shapes[1] else BROADCAST
    tensors = spread(imp, node, [x.tensor, y.tensor])
    if tensors is None:
        return BROADCAST
    if sign != 1:
        name = imp.unique(f"{node.outputs[0]}.negative")
        negative = Affine(imp.unique(f"{node.name}.negative"), [tensors[1]], [name], np.array([sign]), np.zeros(1))
        tensors[1] = imp.emit(negative, imp.type(tensors[1]).shape)
    grids_of = [imp.type(t).quantizer for t in tensors]
    kept = grids_of[0] if issubclass(made, (Larger, Smaller)) and grids_of[0] == grids_of[1] else None
    imp.write(node, made(node.name, tensors, [node.outputs[0]]), imp.type(tensors[0]).shape, kept)


@operator("Sub")
def sub(imp: Importer, node: Source):
    parts = split(imp, node)
    if not parts:
        return pointwise(imp, node, Add, -1.0)
    sign = np.ones(1) if parts.index == 0 else -np.ones(1)
    return affine(imp, node, parts.index, sign, -sign * parts.constant, parts.of_columns)


def scaled_weight(imp: Importer, node: Source, weight: QuantizedConstant, factor: np.ndarray):
    """Positive factors over quantized weights go into their scale (DoReFa, weight normalisation)."""
    positive = (np.isfinite(factor) & (factor > 0)).all()
    if not positive or np.broadcast_shapes(factor.shape, weight.u.shape) != weight.u.shape:
        return Fallback("its factors of quantized weights are negative, or not one for each")
    return imp.define(node, replace(weight, scale=weight.scale * factor))


@operator("Mul")
def mul(imp: Importer, node: Source):
    for index in (0, 1):
        weight, factor = imp.value(node, index), imp.value(node, 1 - index)
        if isinstance(weight, QuantizedConstant) and isinstance(factor, Constant):
            return scaled_weight(imp, node, weight, factor.array.astype(np.float64))
    parts = split(imp, node)
    if not parts:
        return pointwise(imp, node, Mul)
    return affine(imp, node, parts.index, parts.constant, np.zeros(1), parts.of_columns)


@operator("Div")
def div(imp: Importer, node: Source):
    weight, divisor = imp.value(node, 0), imp.value(node, 1)
    if isinstance(weight, QuantizedConstant) and isinstance(divisor, Constant):
        with np.errstate(divide="ignore"):  # what is not finite is no factor of a scale
            return scaled_weight(imp, node, weight, 1 / divisor.array.astype(np.float64))
    parts = split(imp, node)
    if not parts or parts.index == 1:
        return NOT_AFFINE
    if not parts.constant.all():
        raise ModelError(f"{node}: division by 0; constants other than 0 would be accepted")
    return affine(imp, node, 0, 1 / parts.constant, np.zeros(1), parts.of_columns)


@operator("Neg")
def neg(imp: Importer, node: Source):
    return affine(imp, node, 0, -np.ones(1), np.zeros(1))


# -- activations -------------------------------------------------------------------------------------------------------
def clip(imp: Importer, node: Source, low: float, high: float, index: int = 0):
    """A Clip of input `index`; nothing where it cannot change a value. Over a grid that holds both ends or passes them the
    rest is a grid too."""
    if np.isnan(low) or np.isnan(high) or low > high:
        raise ModelError(
            f"{node}: bounds {low:g} and {high:g}; a lower bound not above the upper one would be accepted"
        )
    x = imp.tensor(node, index)
    reach = real_range(imp, x)
    if low <= reach[0] and reach[1] <= high:
        return imp.define(node, imp.value(node, index))
    parts = imp.mixed_parts(x)
    inside = [g for t in parts or () if (g := clipped_grid(imp, node, t, low, high))]
    if parts and len(inside) == len(parts):
        made = []
        for i, (tensor, quantizer) in enumerate(zip(parts, inside)):
            name = imp.unique(f"{node.outputs[0]}.{i}")
            imp.emit(Clip(imp.unique(f"{node.name}.{i}"), [tensor], [name], low, high))
            made.append(imp.requantized(name, quantizer))
        return imp.write(node, Concat(node.name, made, [node.outputs[0]]), imp.type(x).shape)
    imp.write(node, Clip(node.name, [x], [node.outputs[0]], low, high))
    on_grid = clipped_grid(imp, node, x, low, high)
    if on_grid:
        imp.define(node, Activation(node.outputs[0], on_grid))


def clipped_grid(imp: Importer, node: Source, tensor: str, low: float, high: float) -> Quantizer | None:
    """The grid of what is left of a quantized tensor between two ends; None where these are not on its grid, or it has
    none."""
    present, reach = imp.type(tensor).quantizer, real_range(imp, tensor)
    if not present:
        return None
    scale, grid = present.scale, present.grid
    ends = [grid.lo if low <= reach[0] else low / scale, grid.hi if high >= reach[1] else high / scale]
    if any(abs(q - round(q)) >= 1e-6 or (round(q) - grid.lo) % grid.step for q in ends):
        return None
    first, last = (round(q) for q in ends)
    inner = grids.tightest(first, last, grid.step, str(node))
    return Quantizer(inner, present.spacing, present.zero, round(first / grid.step + present.zero))


@operator("Relu")
def relu(imp: Importer, node: Source):
    clip(imp, node, 0.0, np.inf)


@operator("Clip")
def clip_op(imp: Importer, node: Source):
    """Of real values; of codes (QCDQ) it narrows their range."""
    value = imp.value(node, 0)
    ends = []
    for index, name, missing in ((1, "min", -np.inf), (2, "max", np.inf)):
        if node.has(index):
            bound = imp.constant(node, index, name)
            if bound.size != 1:
                raise ModelError(f"{node}: {bound.size} values of {name}; one would be accepted")
            ends.append(float(bound.reshape(-1)[0]))
        else:
            ends.append(float(node.attribute(name, missing)))
    if isinstance(value, Codes):
        low, high = max(ends[0], value.low), min(ends[1], value.high)
        if not low <= high:
            raise ModelError(
                f"{node}: no code between {ends[0]:g} and {ends[1]:g}; bounds that leave some would be accepted"
            )
        return imp.define(node, replace(value, low=int(low), high=int(high)), imp.dtype(node, 0))
    clip(imp, node, *ends)


@operator("Max", "Min")
def extreme(imp: Importer, node: Source):
    """Of a tensor and a number: a Clip."""
    if node.count != 2:
        return Fallback(f"it is of {node.count}")
    parts = split(imp, node)
    if parts is None:
        return pointwise(imp, node, Larger if node.op_type == "Max" else Smaller)
    if parts.constant.size != 1:
        return Fallback("its constant differs between channels")
    if not np.isfinite(parts.constant).all():
        raise ModelError(f"{node}: a constant that is not finite; finite ones would be accepted")
    ends = (parts.constant[0], np.inf) if node.op_type == "Max" else (-np.inf, parts.constant[0])
    clip(imp, node, *map(float, ends), index=parts.index)


@operator("PRelu")
def prelu(imp: Importer, node: Source):
    slope = per_channel(imp.real_constant(node, 1), imp.shape(imp.value(node, 0)))
    if slope is None:
        return Fallback("its slope is no constant for each channel")
    imp.write(node, PRelu(node.name, [imp.tensor(node, 0)], [node.outputs[0]], slope))


@operator("LeakyRelu")
def leaky_relu(imp: Importer, node: Source):
    slope = np.array([np.float64(node.attribute("alpha", 0.01))])
    imp.write(node, PRelu(node.name, [imp.tensor(node, 0)], [node.outputs[0]], slope))


# -- the rest ----------------------------------------------------------------------------------------------------------
@operator("Concat")
def concat(imp: Importer, node: Source):
    given = [imp.value(node, i) for i in range(node.count)]
    values = [v for v in given if isinstance(v, Activation)]
    if len(values) < len(given):
        return Fallback("it joins constants")
    rank = len(imp.shape(values[0]))
    if node.attribute("axis", 1) % rank != 1:
        return Fallback("it is along another axis than the channels")
    if len(values) == 1:
        return imp.define(node, values[0])
    shuffles.beside(imp, node)
    sources = [imp.quantized(node, i) for i in range(node.count)]
    on_grids = [s.tensor for s in sources if s and (s.factor == 1).all()]
    tensors = on_grids if len(on_grids) == len(values) else [v.tensor for v in values]
    types = [imp.type(t) for t in tensors]
    for tensor, kind in zip(tensors, types):
        if kind.shape[1:] != types[0].shape[1:]:
            raise ModelError(
                f"{node}: {tensor} of {list(kind.shape)} beside {tensors[0]} of {list(types[0].shape)}; tensors that "
                "differ in their channels only would be accepted"
            )
    same = all(t.quantizer == types[0].quantizer for t in types)
    shape = (sum(t.shape[0] for t in types), *types[0].shape[1:])
    imp.write(node, Concat(node.name, tensors, [node.outputs[0]]), shape, types[0].quantizer if same else None)


@operator("Identity", "Dropout")
def identity(imp: Importer, node: Source):
    if node.op_type == "Dropout" and node.has(2) and trains(imp, node):
        raise ModelError(f"{node}: in training mode; a model exported for inference would be accepted")
    if len(node.outputs) > 1 and node.uses(1):
        raise ModelError(f"{node}: its mask is read; a model exported for inference would be accepted")
    imp.define(node, imp.value(node, 0), imp.dtype(node, 0))


CAST = ("BOOL", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64")
"""What casts may make of real values."""


def trains(imp: Importer, node: Source) -> bool:
    """Whether a Dropout with a training mode drops something."""
    ratio = imp.real_constant(node, 1) if node.has(1) else np.array(0.5)
    mode = imp.real_constant(node, 2)
    return bool((mode is None or mode.any()) and (ratio is None or ratio.any()))


@operator("Cast")
def cast(imp: Importer, node: Source):
    """To float32, of codes to the type that they have, of integers to a wider type: nothing. To other integers a float
    operator."""
    to, value = ir.DataType(node.attribute("to", 1)), imp.value(node, 0)
    if isinstance(value, Codes) and to.name == imp.dtype(node, 0):
        return imp.define(node, value, to.name)
    if isinstance(value, (Activation, IntegerInput)) and to.name in CAST:
        if isinstance(value, IntegerInput) and to.name in ("INT32", "INT64"):  # all that float32 holds exactly
            return imp.define(node, IntegerInput(value.tensor), to.name)
        return Fallback("it makes integers of real values")
    if to != ir.DataType.FLOAT:
        raise ModelError(f"{node}: a cast to {to.name}; FLOAT would be accepted")
    if isinstance(value, IntegerInput):
        return imp.define(node, Activation(value.tensor), "FLOAT")
    if not isinstance(value, Activation):
        raise ModelError(f"{node}: a cast of integer codes; DequantizeLinear would be accepted")
    imp.define(node, value)
