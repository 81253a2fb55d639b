"""Quantizers in both IRs: quantize and dequantize, our int_quant, and fake quantization in float."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpcompile.tvm_frontend.dataflow import Call, NotMatched, Value
from mpcompile.tvm_frontend.write import QONNX, Writer, operator

CODES = ("uint8", "int8", "uint16", "int16")


def scale_of(call: Call, index: int) -> np.ndarray:
    """Input `index`, float32, () or [C]. Raises NotMatched where it is no constant."""
    value = call.inputs[index]
    if value.array is None:
        raise NotMatched("its scale or zero point is computed at run time")
    array = value.array.astype(np.float32)
    return array.reshape(()) if array.size == 1 else array.reshape(-1)


def zero_of(call: Call, index: int, dtype: str) -> np.ndarray:
    value = call.inputs[index]
    if value.array is None:
        raise NotMatched("its scale or zero point is computed at run time")
    whole = value.array.astype(np.int64)
    limits = np.iinfo(dtype)
    if (whole != value.array).any() or whole.min() < limits.min or whole.max() > limits.max:
        raise NotMatched(f"its zero point is none of {dtype}")
    return (whole.reshape(()) if whole.size == 1 else whole.reshape(-1)).astype(dtype)


def axis_of(call: Call, value: Value) -> int:
    return int(call.attrs.get("axis", 1)) % max(1, len(value.shape))


def parameters(writer: Writer, call: Call, dtype: str) -> tuple[list[str], dict]:
    """Inputs 1 and 2 as initializers, and the axis where there is a scale for each channel."""
    scale, zero = scale_of(call, 1), zero_of(call, 2, dtype)
    if scale.ndim and not zero.ndim:
        zero = np.full(scale.shape, zero)
    if zero.ndim and not scale.ndim:
        scale = np.full(zero.shape, scale)
    names = [writer.constant(scale)]
    if dtype != "int32":  # of which ONNX has no zero points
        names.append(writer.constant(zero))
    elif zero.any():
        raise NotMatched("it has 32-bit codes with a zero point")
    return names, {"axis": axis_of(call, call.inputs[0])} if scale.ndim else {}


@operator("quantize")
def quantize(writer: Writer, call: Call) -> None:
    """u = saturate(round(x/s) + z), ties to even."""
    dtype = call.output.dtype
    if dtype not in CODES:
        raise NotMatched(f"it makes codes of type {dtype}; {', '.join(CODES)} are matched")
    if call.inputs[0].dtype != "float32":
        raise NotMatched(f"it quantizes {call.inputs[0].dtype}, not float32")
    names, axis = parameters(writer, call, dtype)
    writer.node("QuantizeLinear", [call.inputs[0], *names], call.output, **axis)


@operator("dequantize")
def dequantize(writer: Writer, call: Call) -> None:
    """(u − z)·s."""
    codes = call.inputs[0]
    if codes.dtype not in (*CODES, "int32") or (codes.dtype == "int32" and codes.array is None):
        raise NotMatched(f"it reads codes of type {codes.dtype}; {', '.join(CODES)} are matched")
    if call.output.dtype != "float32":
        raise NotMatched(f"it makes {call.output.dtype}, not float32")
    names, axis = parameters(writer, call, codes.dtype)
    writer.node("DequantizeLinear", [codes, *names], call.output, **axis)


@operator("int_quant")
def int_quant(writer: Writer, call: Call) -> None:
    """QONNX's quantizers, by our own operator mpcompile.int_quant."""
    (x, *given), at = call.inputs, call.attrs
    if any(v.array is None for v in given):
        raise NotMatched("its scale or zero point is computed at run time")
    scale, zero = (writer.name(v) for v in given)
    flags = {"signed": int(at["signed"]), "narrow": int(at["narrow"]), "rounding_mode": str(at["rounding"]).upper()}
    if at["kind"] == "bipolar":
        writer.node("BipolarQuant", [x, scale], call.output, domain=QONNX)
        return
    bits = writer.constant(np.array(at["bits"], np.float32))
    if at["kind"] == "int":
        writer.node("IntQuant", [x, scale, zero, bits], call.output, domain=QONNX, **flags)
        return
    out_bits = writer.constant(np.array(at["out_bits"], np.float32))
    if not at["out_scale"]:
        writer.node(
            "Trunc", [x, scale, zero, bits, out_bits], call.output, domain=QONNX, rounding_mode=flags["rounding_mode"]
        )
        return
    out_scale = writer.constant(np.array(at["out_scale"], np.float32))
    writer.node("Trunc", [x, scale, zero, bits, out_scale, out_bits], call.output, domain=QONNX, **flags)


@operator("fake_quantize")
def fake_quantize(writer: Writer, call: Call) -> None:
    """A chain of float operators that fake_quantize.merge found: codes low to high, ties to even."""
    x, scale, zero = call.inputs
    assert scale.array is not None and zero.array is not None
    low, high = call.attrs["low"], call.attrs["high"]
    z = float(zero.array)
    dtype = next(
        (t for t in ("uint8", "int8") if np.iinfo(t).min <= min(low, z) and max(high, z) <= np.iinfo(t).max), None
    )
    if dtype is None or z != int(z):
        raise NotMatched(f"its codes, {low} to {high} around {z:g}, are none of 8 bits")
    axis = next((i for i, n in enumerate(scale.array.shape, len(x.shape) - scale.array.ndim) if n > 1), None)
    if scale.array.size > 1 and sum(n > 1 for n in scale.array.shape) > 1:
        raise NotMatched("it has a scale for more than each channel")
    spacing = scale.array.reshape(-1) if axis is not None else scale.array.reshape(-1)[0]
    around: dict[str, Any] = {} if axis is None else {"axis": axis}
    points = np.full(np.shape(spacing), z, dtype)
    names = [writer.constant(np.asarray(spacing, np.float32)), writer.constant(points)]
    first: dict[str, Any] = {"zero_first": 1} if call.attrs["zero_first"] and z else {}
    codes = writer.node("QuantizeLinear", [x, *names], **around, **first)
    clipped = writer.node("Clip", [codes, *(writer.constant(np.array(b, dtype)) for b in (low, high))])
    writer.node("DequantizeLinear", [clipped, *names], call.output, **around)
