"""Relay's operators of ours: what a rewritten region is made of, so that it prints, passes InferType, is saved and loaded.

`mpcompile.bitserial_conv2d`, `_conv1d`, `_dense`: a fused layer with at least one contraction on integers; `mpcompile.layer`:
one without (pooling, an add). Attributes say grids, families and what was fused; `shapes` and `dtypes` are the results'.
`mpcompile.region`: all of a region's results, and the region itself as bytes of an ONNX model, from which any process
makes the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relay
from tvm.relay.op import op as registry

LAYERS = ("bitserial_conv2d", "bitserial_conv1d", "bitserial_dense", "layer")
REGION = "mpcompile.region"


def register() -> None:
    """Once a process."""
    for name in LAYERS:
        _register(f"mpcompile.{name}", "a fused layer of mpcompile", 1, _by_attributes)
    _register(REGION, "the results of a region, and its ONNX model", 2, lambda types, attrs: types[0] if len(types[0].fields) > 1 else types[0].fields[0])


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


def _by_attributes(types: Any, attrs: Any) -> Any:
    made = [relay.TensorType([int(n) for n in shape], dtype) for shape, dtype in zip(attrs["shapes"], attrs["dtypes"])]
    return made[0] if len(made) == 1 else relay.TupleType(made)


def layer(name: str, inputs: Sequence[Any], outputs: Sequence[tuple[Sequence[int], str]], attrs: Mapping[str, str]) -> list[Any]:
    """A call of `mpcompile.NAME`, and the expressions of its results, each (shape, dtype)."""
    made = tvm.ir.make_node(
        "DictAttrs", shapes=[list(shape) for shape, _ in outputs], dtypes=[dtype for _, dtype in outputs], **attrs
    )
    call = relay.Call(registry.get(f"mpcompile.{name}"), [relay.Tuple(list(inputs))], made)
    return [call] if len(outputs) == 1 else [relay.TupleGetItem(call, i) for i in range(len(outputs))]


def region(results: Sequence[Any], model: bytes, target: str) -> Any:
    """The last call of a region's function."""
    data = relay.const(np.frombuffer(model, np.uint8).copy())
    return relay.Call(registry.get(REGION), [relay.Tuple(list(results)), data], tvm.ir.make_node("DictAttrs", target=target))


def region_of(function: relay.Function) -> tuple[bytes, str]:
    """The ONNX model and the target of such a function."""
    call = function.body
    return call.args[1].data.numpy().tobytes(), str(call.attrs["target"])


register()
