"""Our operator mpcompile.int_quant, the same in both IRs: QONNX's IntQuant, BipolarQuant and Trunc.

Inputs: x, scale, zero point (float32; a scale for all or one for each channel, as broadcasting has it). Attributes: `kind`
("int", "bipolar" or "trunc"), `bits`, `signed`, `narrow`, `rounding` (a QONNX rounding mode, lower case); of a trunc also
`out_bits` and `out_scale` (0: version 1, which has none). The result has the shape and type of x. IRs' own operators for
quantization cannot say this: their zero points are whole numbers, and their codes have 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend.qonnx import QONNX_ROUNDINGS, integer_range

NAME = "mpcompile.int_quant"
ONNX_NAMES = ("IntQuant", "Quant", "BipolarQuant", "Trunc")


def attributes_of(op_type: str, given: Mapping[str, Any], constants: Sequence[np.ndarray | None]) -> dict[str, Any]:
    """Attributes of the operator for a QONNX node: `given` are the node's, `constants` its inputs, None for those that are
    computed. Raises ModelError where it is none that can be said."""

    def number(index: int, what: str) -> float:
        value = constants[index] if index < len(constants) else None
        if value is None or value.size != 1:
            raise ModelError(f"{op_type}: its {what} is no single constant; one would be accepted")
        return float(value.reshape(()))

    if any(c is None for c in constants[1:]):
        raise ModelError(
            f"{op_type}: a scale, zero point or bit width is computed at run time; constants would be accepted"
        )
    default = "FLOOR" if op_type == "Trunc" else "ROUND"
    mode = given.get("rounding_mode", default)
    mode = (mode.decode() if isinstance(mode, bytes) else str(mode)).upper()
    if mode not in QONNX_ROUNDINGS:
        raise ModelError(f"{op_type}: rounding mode {mode}; {', '.join(QONNX_ROUNDINGS)} would be accepted")
    made = {"kind": "int", "bits": 1, "signed": int(given.get("signed", 1)), "narrow": int(given.get("narrow", 0))}
    made |= {"rounding": mode.lower(), "out_bits": 0, "out_scale": 0.0}
    if op_type == "BipolarQuant":
        return made | {"kind": "bipolar"}
    made["bits"] = int(number(3, "bit width"))
    if op_type == "Trunc":
        second = len(constants) == 6
        made |= {"kind": "trunc", "out_bits": int(number(5 if second else 4, "output's bit width"))}
        made["out_scale"] = number(4, "output's scale") if second else 0.0
    return made


def float_form(ops: Any, x: Any, scale: Any, zero: Any, attrs: Mapping[str, Any]) -> Any:
    """What the operator computes, out of an IR's float operators, for where no region takes it in.

    `ops` has add, subtract, multiply, divide, floor, ceil, absolute, sign, trunc, clip(x, lo, hi), where(c, x, y),
    equal, greater_equal, number (a float32 constant) and half_even (to the nearest, ties to even).
    """
    kind, bits = attrs["kind"], int(attrs["bits"])
    if kind == "bipolar" or (kind == "int" and bits == 1 and int(attrs["signed"])):
        return ops.where(ops.greater_equal(x, ops.number(0.0)), scale, ops.subtract(ops.number(0.0), scale))
    mode = QONNX_ROUNDINGS[str(attrs["rounding"]).upper()]
    steps = ops.add(ops.divide(x, scale), zero)
    if kind == "int":
        low, high = integer_range(bits, bool(int(attrs["signed"])), bool(int(attrs["narrow"])))
        codes = rounded(ops, ops.clip(steps, float(low), float(high)), mode)
        return ops.multiply(ops.subtract(codes, zero), scale)
    out_scale = float(attrs["out_scale"])
    whole = ops.half_even(steps)
    if not out_scale:
        shift = bits - int(attrs["out_bits"])
        codes = rounded(ops, ops.multiply(whole, ops.number(2.0**-shift)), mode)
        return ops.multiply(ops.subtract(codes, zero), scale)
    one = ops.constant_of(scale)
    shift = round(float(np.log2(out_scale / one)))
    low, high = integer_range(int(attrs["out_bits"]), bool(int(attrs["signed"])), bool(int(attrs["narrow"])))
    codes = ops.clip(rounded(ops, ops.multiply(whole, ops.number(2.0**-shift)), mode), float(low), float(high))
    return ops.multiply(ops.subtract(codes, zero), ops.number(out_scale))


def rounded(ops: Any, x: Any, mode: str) -> Any:
    """By a rounding of ir.graph.ROUNDINGS."""
    if mode in ("floor", "ceil", "half_even"):
        return {"floor": ops.floor, "ceil": ops.ceil, "half_even": ops.half_even}[mode](x)
    away = ops.multiply(ops.sign(x), ops.ceil(ops.absolute(x)))
    if mode in ("up", "down"):
        return away if mode == "up" else ops.trunc(x)
    tie = ops.equal(ops.absolute(ops.subtract(x, ops.trunc(x))), ops.number(0.5))
    return ops.where(tie, away if mode == "half_up" else ops.trunc(x), ops.half_even(x))
