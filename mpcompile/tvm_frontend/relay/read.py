"""A Relay function as a Dataflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tvm
from tvm import relay

from mpcompile.tvm_frontend.dataflow import Call, Dataflow, NotMatched, Value

RENAMED = {
    "transpose": "permute_dims",
    "concatenate": "concat",
    "qnn.quantize": "quantize",
    "qnn.dequantize": "dequantize",
}
ATTRIBUTES = {"clip": {"a_min": "min", "a_max": "max"}}
"""Operator → its attributes that are called otherwise in Relax."""


def dataflow_of(function: relay.Function, name: str) -> tuple[Dataflow, dict[Any, tuple[Value, ...]]]:
    """The calls of a function whose types are inferred, in the order in which they may run, and expression → its Values.
    Raises NotMatched where it has control flow, or functions inside."""
    values: dict[Any, tuple[Value, ...]] = {}
    calls: list[Call] = []
    for parameter in function.params:
        values[parameter] = typed(parameter)
    for made in in_order(function.body):
        if isinstance(made, relay.Constant):
            array = made.data.numpy()
            values[made] = (Value(tuple(array.shape), str(array.dtype), array, origin=made),)
        elif isinstance(made, relay.Tuple):
            values[made] = tuple(v for field in made.fields for v in values[field])
        elif isinstance(made, relay.TupleGetItem):
            values[made] = item(made, values)
        elif isinstance(made, relay.Call):
            values[made] = called(made, values, calls)
        elif made not in values and not isinstance(made, tvm.ir.Op | relay.GlobalVar):
            raise NotMatched(f"it has a {type(made).__name__} in it: only functions of calls and tuples are read")
    return Dataflow(name, calls, list(values[function.body])), values


def in_order(body: Any) -> list[Any]:
    """Every expression once, after those that it is made of."""
    found: list[Any] = []
    relay.analysis.post_order_visit(body, found.append)
    return found


def item(made: relay.TupleGetItem, values: dict[Any, tuple[Value, ...]]) -> tuple[Value, ...]:
    kind = made.tuple_value.checked_type
    if any(isinstance(field, relay.TupleType) for field in kind.fields):
        raise NotMatched("it has tuples of tuples: they are not read")
    return (values[made.tuple_value][made.index],)


def called(made: relay.Call, values: dict[Any, tuple[Value, ...]], calls: list[Call]) -> tuple[Value, ...]:
    """A call's results; it is entered in `calls` unless it is the cast of a constant."""
    inputs = [v for argument in made.args for v in values[argument]]
    known = isinstance(made.op, tvm.ir.Op)
    op = made.op.name if known else ""
    attrs = attributes(made.attrs)
    outputs = typed(made)
    if op == "cast" and inputs[0].array is not None:
        outputs[0].array = inputs[0].array.astype(np.dtype(attrs["dtype"]))
        return outputs
    renamed = ATTRIBUTES.get(op, {})
    name = place(made) or f"{op or 'call'}_{len(calls)}"
    call = Call(
        RENAMED.get(op, op), name, inputs, {renamed.get(k, k): v for k, v in attrs.items()}, list(outputs), origin=made
    )
    if op == "mpcompile.int_quant":
        call.op = "int_quant"
    for value in outputs:
        value.call = call
    calls.append(call)
    return outputs


def place(made: relay.Call) -> str:
    """The name that a frontend left: of a node of an ONNX file, say."""
    source = getattr(made.span, "source_name", None) if made.span else None
    return str(source.name) if source else ""


def attributes(attrs: Any) -> dict[str, Any]:
    """By name. Some of TVM's records, AdaptivePool1DAttrs among them, have no class in Python and so no keys: their fields
    are what such an object has beyond every object."""
    if attrs is None:
        return {}
    if hasattr(attrs, "keys"):
        return {str(key): plain_of(attrs[key]) for key in attrs.keys()}  # noqa: SIM118  (no Mapping)
    return {name: plain_of(getattr(attrs, name)) for name in set(dir(attrs)) - set(dir(type(attrs)))}


def plain_of(value: Any) -> Any:
    if isinstance(value, tvm.tir.IntImm | tvm.tir.FloatImm):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): plain_of(v) for k, v in value.items()}
    if isinstance(value, int | float | bool) or value is None:
        return value
    if isinstance(value, tvm.ir.Array | list | tuple):
        return tuple(plain_of(v) for v in value)
    return str(value)


def typed(made: Any) -> tuple[Value, ...]:
    """A Value for each tensor of an expression's type. Raises NotMatched at other types."""
    kind = made.checked_type
    if isinstance(kind, relay.TupleType):
        return tuple(_value(field, (made, i)) for i, field in enumerate(kind.fields))
    return (_value(kind, made),)


def _value(kind: Any, origin: Any) -> Value:
    if not isinstance(kind, relay.TensorType):
        raise NotMatched(f"it has a value of type {type(kind).__name__}: only tensors are read")
    shape = tuple(int(n) if isinstance(n, tvm.tir.IntImm) else f"size{i}" for i, n in enumerate(kind.shape))
    return Value(shape, str(kind.dtype), origin=origin)
