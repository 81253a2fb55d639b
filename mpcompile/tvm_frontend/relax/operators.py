"""mpcompile.int_quant in Relax: its type, and what it is made of where no region takes it in."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from mpcompile.tvm_frontend.int_quant import NAME, float_form
from mpcompile.tvm_frontend.relax.plain import attributes


class _Ops:
    """Relax's operators by the names that float_form uses."""

    add, subtract, multiply, divide = relax.op.add, relax.op.subtract, relax.op.multiply, relax.op.divide
    floor, ceil, absolute, sign, trunc = relax.op.floor, relax.op.ceil, relax.op.abs, relax.op.sign, relax.op.trunc
    where, equal, greater_equal = relax.op.where, relax.op.equal, relax.op.greater_equal
    clip, half_even = relax.op.clip, relax.op.round

    @staticmethod
    def number(value: float) -> Any:
        return relax.const(value, "float32")

    @staticmethod
    def constant_of(scale: Any) -> float:
        return float(scale.value.numpy().reshape(-1)[0])


def int_quant(x: Any, scale: Any, zero: Any, attrs: dict[str, Any]) -> relax.Call:
    """A call of mpcompile.int_quant: QONNX's quantizers, which Relax's own cannot say. attrs: as
    mpcompile.tvm_frontend.int_quant says."""
    return relax.Call(tvm.ir.Op.get(NAME), [x, scale, zero], attrs=_attributes(attrs))


def _attributes(attrs: dict[str, Any]) -> Any:
    make: Any = tvm.ir.make_node
    return make("ir.DictAttrs", **attrs)


def _type(call: relax.Call, builder: relax.BlockBuilder) -> Any:
    return call.args[0].ty


def _legalize(builder: relax.BlockBuilder, call: relax.Call) -> Any:
    x, scale, zero = call.args
    return builder.normalize(_normal(builder, float_form(_Ops, x, scale, zero, attributes(call.attrs))))


def _normal(builder: relax.BlockBuilder, expression: Any) -> Any:
    """Its nested calls one by one."""
    if isinstance(expression, relax.Call):
        arguments = [builder.emit(_normal(builder, a)) if isinstance(a, relax.Call) else a for a in expression.args]
        return relax.Call(expression.op, arguments, expression.attrs)
    return expression


def register() -> None:
    """Once a process."""
    tvm.ir.register_op_attr(NAME, "FInferType", _type)
    tvm.ir.register_op_attr(NAME, "FPurity", True)
    tvm.ir.register_op_attr(NAME, "FLegalize", _legalize)


register()
