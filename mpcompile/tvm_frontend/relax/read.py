"""A Relax function as a Dataflow."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from mpcompile.tvm_frontend.dataflow import Call, Dataflow, Dimension, NotMatched, Value
from mpcompile.tvm_frontend.relax.plain import attributes, plain_of
from mpcompile.tvm_frontend.relax.te_functions import operator_of

OURS = ("relax.", "mpcompile.int_quant")
PLAIN = {"clip": ("min", "max"), "reshape": ("shape",), "nn.pad": ("pad_value",)}
"""Operator → the names of its arguments that are no tensors, in order."""


def dataflow_of(mod: Any, function: Any, name: str) -> tuple[Dataflow, dict]:
    """All bindings of a function of `mod` in order, and variable → its Value, or a tuple of them. Raises NotMatched where
    its body is none of blocks of bindings."""
    body = function.body
    if not isinstance(body, relax.SeqExpr):
        raise NotMatched("its body is no sequence of bindings: normalize it before the pass")
    values: dict[Any, Value | tuple[Value, ...]] = {}
    for parameter in function.params:
        if value := tensor(parameter):
            values[parameter] = value
    calls: list[Call] = []
    for number, block in enumerate(body.blocks):
        for binding in block.bindings:
            call = bound(mod, binding, isinstance(block, relax.DataflowBlock), values)
            if call is not None:
                call.origin, call.block = binding, number
                calls.append(call)
    return Dataflow(name, calls, flat(body.body, values)), values


def bound(mod: Any, binding: Any, pure: bool, values: dict) -> Call | None:
    """A binding's call, entered in `values`; None where it only gives something another name."""
    made = binding.value
    if isinstance(binding, relax.VarBinding):
        if isinstance(made, relax.Var) and made in values:
            values[binding.var] = values[made]
            return None
        if isinstance(made, tvm.ir.GenericConst):
            values[binding.var] = constant(made)
            return None
        if isinstance(made, relax.Tuple) and all(
            f in values or isinstance(f, tvm.ir.GenericConst) for f in made.fields
        ):
            values[binding.var] = tuple(v for f in made.fields for v in flat(f, values))
            return None
        if isinstance(made, relax.TupleGetItem) and isinstance(values.get(made.tuple_value), tuple):
            values[binding.var] = values[made.tuple_value][made.index]
            return None
    call = read_call(mod, binding, pure, values)
    outputs = tensors(binding.var)
    if (array := folded(call, outputs)) is not None:
        outputs[0].array = array.astype(outputs[0].dtype, copy=False)
        values[binding.var] = outputs[0]
        return None
    for value in outputs:
        value.call = call
    call.outputs = outputs
    if isinstance(binding.var.ty, relax.TupleType):
        values[binding.var] = tuple(outputs)
    elif outputs:
        values[binding.var] = outputs[0]
    return call


def read_call(mod: Any, binding: Any, pure: bool, values: dict) -> Call:
    """Whatever a binding does, as a Call: of an operator that is known, or of none, with the tensors that it reads."""
    made, name = binding.value, binding.var.name
    op: Any = made.op if pure and isinstance(made, relax.Call) and isinstance(made.op, tvm.ir.Op) else None
    if op is None or not op.name.startswith(OURS):
        read: dict[Value, None] = {}
        relax.analysis.post_order_visit(made, lambda e: read.update(dict.fromkeys(flat(e, values))))
        return Call("", name, list(read))
    op = op.name.removeprefix("relax.").removeprefix("mpcompile.")
    attrs = {} if made.attrs is None else attributes(made.attrs)
    inputs, plain = [], list(PLAIN.get(op, ()))
    for argument in made.args:
        if isinstance(argument, relax.Var | relax.Tuple | tvm.ir.GenericConst):
            inputs += flat(argument, values)
        elif plain:
            attrs[plain.pop(0)] = plain_of(argument)
    if op == "call_tir":
        op, inputs = of_tensor_expression(mod, made, inputs)
    return Call(op, name, inputs, attrs)


def of_tensor_expression(mod: Any, made: Any, inputs: list[Value]) -> tuple[str, list[Value]]:
    """The operator that a call of a PrimFunc is, with its inputs: "call_tir" where it is none that is known."""
    function = mod.functions.get(made.args[0])
    found = operator_of(function) if isinstance(function, tvm.tirx.PrimFunc) else None
    if found is None:
        return "call_tir", inputs
    op, bound = found
    if bound is not None:
        inputs = [*inputs, Value((), inputs[0].dtype, np.array(bound, inputs[0].dtype))]
    return op, inputs


def folded(call: Call, outputs: list[Value]) -> np.ndarray | None:
    """What frontends compute of constants to make bounds and zero points; None of any other call."""
    arrays: list[np.ndarray] = [v.array for v in call.inputs if v.array is not None]
    if len(arrays) < len(call.inputs) or not arrays:
        return None
    if call.op in ("astype", "broadcast_to") and all(isinstance(size, int) for size in outputs[0].shape):
        return np.broadcast_to(arrays[0], tuple(int(size) for size in outputs[0].shape))
    if call.op == "isnan":
        return np.isnan(arrays[0])
    return np.where(*arrays) if call.op == "where" and len(arrays) == 3 else None


def flat(expression: Any, values: dict) -> list[Value]:
    """The tensors that an expression names."""
    if isinstance(expression, tvm.ir.GenericConst):
        found: Any = values.setdefault(expression, constant(expression))
    elif isinstance(expression, relax.Tuple):
        return [v for f in expression.fields for v in flat(f, values)]
    else:
        found = values.get(expression) if isinstance(expression, relax.Var) else None
    return [] if found is None else list(found) if isinstance(found, tuple) else [found]


def constant(made: Any) -> Value:
    array = made.value.numpy()
    return Value(tuple(array.shape), str(array.dtype), array, origin=made)


def tensors(variable: Any) -> list[Value]:
    """One for each tensor of a variable's type."""
    if isinstance(variable.ty, relax.TupleType):
        made = [typed(field, (variable, i)) for i, field in enumerate(_fields(variable.ty))]
        return [value for value in made if value]
    value = tensor(variable)
    return [value] if value else []


def _fields(kind: Any) -> list[Any]:
    return list(kind.fields)


def tensor(variable: Any) -> Value | None:
    return typed(variable.ty, variable)


def typed(kind: Any, origin: Any) -> Value | None:
    """A Value of that type; None where it is none of tensors of a known rank."""
    if not isinstance(kind, relax.TensorType) or not isinstance(kind.shape, relax.ShapeExpr):
        return None
    shape: tuple[Dimension, ...] = tuple(plain_of(size) for size in kind.shape.values)
    return Value(shape, str(kind.dtype), origin=origin)
