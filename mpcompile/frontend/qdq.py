"""Standard ONNX quantizers: QuantizeLinear and DequantizeLinear. (A Clip between them is in elementwise.py.)"""

from __future__ import annotations

import numpy as np
from onnx.helper import make_node

from mpcompile.errors import ModelError
from mpcompile.frontend import dynamic
from mpcompile.frontend.floatop import emit_nodes
from mpcompile.frontend.importer import Importer, Source, operator
from mpcompile.frontend.quantizers import (
    ZERO_FIRST,
    affine,
    finite,
    per_tensor,
    quantize_channels,
    quantizer,
    scale_of,
    spacings,
)
from mpcompile.frontend.values import Activation, Codes, Constant, DynamicCodes, IntegerInput, QuantizedConstant
from mpcompile.ir.graph import Quantizer

WIDE = {"INT16": (-32768, 32767), "UINT16": (0, 65535)}
WIDEST = 255
"""Between the least and the greatest code that layers of integers take; wider ranges run in float."""
STORED = {"INT8": (-128, 127), "UINT8": (0, 255), "INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}


def stored_range(node: Source, dtype: str) -> tuple[int, int]:
    ranges = STORED | WIDE
    if dtype not in ranges:
        raise ModelError(f"{node}: codes of type {dtype}; {', '.join(ranges)} would be accepted")
    return ranges[dtype]


def linear_parameters(imp: Importer, node: Source, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, str | None]:
    """(scale, zero point, zero point's type) of a (De)QuantizeLinear, shaped to broadcast against `shape`."""
    scale = scale_of(imp, node, 1)
    zero = imp.constant(node, 2, "zero point", integer=True) if node.has(2) else None
    dtype = imp.dtype(node, 2) if zero is not None else None
    if dtype == "":
        raise ModelError(f"{node}: a zero point of unknown type; one whose type the file says would be accepted")
    zero = np.zeros(scale.shape, np.int64) if zero is None else zero.astype(np.int64)
    if zero.size not in (1, scale.size):
        raise ModelError(f"{node}: {zero.size} zero points for {scale.size} scales; one for each would be accepted")
    if block := node.attribute("block_size", 0):
        zero = np.broadcast_to(zero.reshape(-1 if zero.size == 1 else scale.shape), scale.shape)
        return spread(node, scale, shape, block), spread(node, zero, shape, block), dtype
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(()) if zero.size == 1 else zero, dtype
    axis = node.attribute("axis", 1) % max(1, len(shape))
    if scale.ndim != 1 or scale.size != shape[axis]:
        raise ModelError(
            f"{node}: scales of shape {list(scale.shape)} along axis {axis} of {list(shape)} (blocked quantization); "
            "one scale per tensor or per output channel would be accepted"
        )
    along = [1] * len(shape)
    along[axis] = -1
    return scale.reshape(along), (zero.reshape(along) if zero.size > 1 else zero.reshape(())), dtype


def spread(node: Source, held: np.ndarray, shape: tuple[int, ...], block: int) -> np.ndarray:
    """Scales or zero points of blocks, [.., ⌈D/block⌉, ..], for each element, [.., D, ..]; one number where all blocks
    have the same. Raises ModelError at another shape."""
    axis = node.attribute("axis", 1) % max(1, len(shape))
    wanted = tuple(-(-n // block) if i == axis else n for i, n in enumerate(shape))
    if block < 1 or held.shape != wanted:
        raise ModelError(
            f"{node}: scales of shape {list(held.shape)} for blocks of {block} along axis {axis} of {list(shape)}; "
            f"{list(wanted)} would be accepted"
        )
    if held.size and (held == held.flat[0]).all():
        return held.reshape(-1)[:1].reshape(())
    return np.repeat(held, block, axis)[tuple(slice(n) for n in shape)]


@operator("QuantizeLinear")
def quantize_linear(imp: Importer, node: Source):
    """u = saturate(round_half_even(x/s) + z), or with the zero point inside (ZERO_FIRST)."""
    value = imp.value(node, 0)
    shape = imp.shape(value)
    scale, zero, dtype = linear_parameters(imp, node, shape)
    dtype = imp.dtype_name(node.attribute("output_dtype", 0)) or dtype or "UINT8"
    low, high = stored_range(node, dtype)
    if isinstance(value, (Constant, QuantizedConstant)):
        x = finite(imp, node)
        u = np.clip(np.rint(x / scale.astype(x.dtype)) + zero, low, high).astype(np.int64)
        return imp.define(node, Constant(u), dtype)
    spacing, zero = spacings(node, scale, shape), int(per_tensor(node, zero, "zero point"))
    zero_first = bool(node.attribute(ZERO_FIRST, 0))
    return imp.define(node, Codes(imp.tensor(node, 0), node.name, spacing, zero, low, high, zero_first), dtype)


def of_layers(imp: Importer, node: Source) -> bool:
    """Whether a (De)QuantizeLinear has one scale, and codes that layers of integers take."""
    value = imp.value(node, 0)
    if isinstance(value, Codes):
        return value.spacing.size == 1 and value.high - value.low <= WIDEST
    scale = imp.real_constant(node, 1)
    dtype = imp.dtype_name(node.attribute("output_dtype", 0)) or (imp.dtype(node, 2) if node.has(2) else "UINT8")
    return scale is not None and scale.size == 1 and dtype in STORED and isinstance(value, Activation)


def codes_in_float(imp: Importer, name: str, codes: Codes, real: bool = False) -> str:
    """Emits the codes themselves, whole numbers in float32, as the tensor `name`; or, `real`, what they stand for. Raises
    ModelError at a scale for each channel."""
    if codes.spacing.size > 1:
        raise ModelError(f"{name}: codes with a scale for each channel; one scale per tensor would be accepted")
    ends = {"low": codes.low, "high": codes.high, "zero": codes.zero, "scale": codes.spacing[0]}
    written = "codes" if real else name
    first, then = ("Add", "Round") if codes.zero_first else ("Round", "Add")
    nodes = [
        make_node("Div", [codes.tensor, "scale"], ["steps"]),
        make_node(first, ["steps", "zero"][: 1 + codes.zero_first], ["half"]),
        make_node(then, ["half", "zero"][: 2 - codes.zero_first], ["moved"]),
        make_node("Clip", ["moved", "low", "high"], [written]),
    ]
    if real:
        nodes += [make_node("Sub", [written, "zero"], ["centred"]), make_node("Mul", ["centred", "scale"], [name])]
    constants = {what: np.full((), value, np.float32) for what, value in ends.items()}
    op_type = "QuantizeLinear of 16 bits" if real else "QuantizeLinear"
    emit_nodes(imp, codes.node, op_type, nodes, [codes.tensor], {name: imp.shape(codes)}, constants)
    return name


@operator("DequantizeLinear")
def dequantize_linear(imp: Importer, node: Source):
    """(u − z)·s: of a constant a quantized constant, of codes the quantized tensor."""
    value = imp.value(node, 0)
    if isinstance(value, DynamicCodes):
        return dynamic.dequantize(imp, node, value)
    if isinstance(value, Constant):
        scale, zero, _ = linear_parameters(imp, node, value.array.shape)
        return imp.define(node, QuantizedConstant(value.array.astype(np.int64), scale, zero))
    if not isinstance(value, (Codes, IntegerInput)):
        raise ModelError(f"{node}: codes that no QuantizeLinear wrote; one in front of it would be accepted")
    shape = imp.shape(value)
    scale, zero, _ = linear_parameters(imp, node, shape)
    spacing, zero = spacings(node, scale, shape), per_tensor(node, zero, "zero point")
    if isinstance(value, IntegerInput):
        low, high = stored_range(node, imp.dtype(node, 0))
        real = affine(imp, node, value.tensor, "real", spacing, -spacing * zero)
        if high - low > WIDEST:
            return imp.define(node, Activation(real))
        value = Codes(real, node.name, spacing, int(zero), low, high)
    elif not np.array_equal(spacing, value.spacing) or zero != value.zero:
        raise ModelError(
            f"{node}: scale {spacing[0]:g} and zero point {zero:g} where {value.node} has {value.spacing[0]:g} and "
            f"{value.zero}; the same ones would be accepted"
        )
    codes = value
    if codes.high - codes.low > WIDEST:
        name = imp.unique(f"{node.outputs[0]}.real")
        return imp.define(node, Activation(codes_in_float(imp, name, codes, real=True)))

    def on_grid(scale: float) -> Quantizer:
        return quantizer(node, scale, codes.zero, codes.low, codes.high, "half_even", codes.zero_first)

    return quantize_channels(imp, node, codes.tensor, codes.spacing, on_grid)
