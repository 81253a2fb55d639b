"""Relay's operators of ours: what a rewritten region is made of, so that it prints, passes InferType, is saved and loaded.

`mpcompile.bitserial_conv2d`, `_conv1d`, `_dense`: a fused layer with at least one contraction on integers;
`mpcompile.layer`: one without (pooling, an add). Attributes say grids, families and what was fused; `shapes` and `dtypes`
are the results'. `mpcompile.region`: all of a region's results, and the region itself as bytes of an ONNX model, from which
any process makes the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relay
from tvm.relay.op import op as registry

from mpcompile.tvm_frontend.int_quant import NAME, float_form

LAYERS = ("bitserial_conv2d", "bitserial_conv1d", "bitserial_dense", "layer")
REGION = "mpcompile.region"


class _Ops:
    """Relay's operators by the names that float_form uses."""

    add, subtract, multiply, divide = relay.add, relay.subtract, relay.multiply, relay.divide
    floor, ceil, absolute, sign, trunc = relay.floor, relay.ceil, relay.abs, relay.sign, relay.trunc
    where, equal, greater_equal, clip = relay.where, relay.equal, relay.greater_equal, relay.clip

    @staticmethod
    def number(value: float) -> Any:
        return relay.const(np.float32(value))

    @staticmethod
    def constant_of(scale: Any) -> float:
        return float(scale.data.numpy().reshape(-1)[0])

    @classmethod
    def half_even(cls, x: Any) -> Any:
        """Relay's own round takes ties away from 0."""
        tie = cls.equal(cls.absolute(cls.subtract(x, cls.trunc(x))), cls.number(0.5))
        even = cls.multiply(relay.round(cls.multiply(x, cls.number(0.5))), cls.number(2.0))
        return cls.where(tie, even, relay.round(x))


def int_quant(x: Any, scale: Any, zero: Any, attrs: Mapping[str, Any]) -> relay.Call:
    """A call of mpcompile.int_quant: QONNX's quantizers, which qnn cannot say. attrs: as mpcompile.tvm_frontend.int_quant
    says."""
    return relay.Call(registry.get(NAME), [x, scale, zero], tvm.ir.make_node("DictAttrs", **attrs))


def register() -> None:
    """Once a process. int_quant is stateful for Relay, or its importer would compute what it makes of constant weights,
    and their grid would be lost."""
    registry.register(NAME, "QONNX's IntQuant, BipolarQuant and Trunc")
    op = registry.get(NAME)
    for argument in ("x", "scale", "zero"):
        op.add_argument(argument, "Tensor", argument)
    op.set_num_inputs(3)
    op.set_attrs_type_key("DictAttrs")
    op.add_type_rel("mpcompile_int_quant", lambda types, attrs: types[0])
    registry.register_pattern(NAME, registry.OpPattern.ELEMWISE)
    registry.register_stateful(NAME, True)
    tvm.ir.register_op_attr(
        NAME, "FTVMQnnCanonicalize", lambda attrs, args, types: float_form(_Ops, *args, _plain(attrs))
    )
    for name in LAYERS:
        _register(f"mpcompile.{name}", "a fused layer of mpcompile", 1, _by_attributes)
    _register(
        REGION,
        "the results of a region, and its ONNX model",
        2,
        lambda types, attrs: types[0] if len(types[0].fields) > 1 else types[0].fields[0],
    )


def _register(name: str, description: str, inputs: int, relation: Any) -> None:
    registry.register(name, description)
    op = registry.get(name)
    op.add_argument("inputs", "Tuple", "tensors")
    if inputs > 1:
        op.add_argument("model", "Tensor", "an ONNX model, uint8")
    op.set_num_inputs(inputs)
    op.set_attrs_type_key("DictAttrs")
    op.add_type_rel(name.replace(".", "_"), relation)
    registry.register_pattern(name, registry.OpPattern.OPAQUE)
    registry.register_stateful(name, False)


def _plain(attrs: Any) -> dict[str, Any]:
    return {name: attrs[name] for name in ("kind", "bits", "signed", "narrow", "rounding", "out_bits")} | {
        "out_scale": float(attrs["out_scale"].value if hasattr(attrs["out_scale"], "value") else attrs["out_scale"])
    }


def _by_attributes(types: Any, attrs: Any) -> Any:
    made = [
        relay.TensorType([relay.Any() if int(n) < 0 else int(n) for n in shape], dtype)
        for shape, dtype in zip(attrs["shapes"], attrs["dtypes"])
    ]
    return made[0] if len(made) == 1 else relay.TupleType(made)


def layer(
    name: str, inputs: Sequence[Any], outputs: Sequence[tuple[Sequence[int], str]], attrs: Mapping[str, str]
) -> list[Any]:
    """A call of `mpcompile.NAME`, and the expressions of its results, each (shape, dtype)."""
    made = tvm.ir.make_node(
        "DictAttrs", shapes=[list(shape) for shape, _ in outputs], dtypes=[dtype for _, dtype in outputs], **attrs
    )
    call = relay.Call(registry.get(f"mpcompile.{name}"), [relay.Tuple(list(inputs))], made)
    return [call] if len(outputs) == 1 else [relay.TupleGetItem(call, i) for i in range(len(outputs))]


def region(results: Sequence[Any], model: bytes, target: str, records: str) -> Any:
    """The last call of a region's function."""
    data = relay.const(np.frombuffer(model, np.uint8).copy())
    attrs = tvm.ir.make_node("DictAttrs", target=target, records=records)
    return relay.Call(registry.get(REGION), [relay.Tuple(list(results)), data], attrs)


def region_of(function: relay.Function) -> tuple[bytes, str, str]:
    """The ONNX model, the target and the folder of records ("": those that ship) of such a function."""
    call = function.body
    return call.args[1].data.numpy().tobytes(), str(call.attrs["target"]), str(call.attrs["records"])


register()
