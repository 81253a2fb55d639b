"""Relay's own ONNX importer, with converters for QONNX's operators."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import onnx
import tvm
from tvm import relay
from tvm.relay.frontend import onnx as onnx_frontend

from mpcompile.tvm_frontend.int_quant import ONNX_NAMES, attributes_of
from mpcompile.tvm_frontend.narrow_types import widened
from mpcompile.tvm_frontend.relay.operators import int_quant


def _converter(op_type: str):
    def convert(inputs: Any, attr: dict, params: dict) -> relay.Call:
        """A QONNX quantizer → mpcompile.int_quant."""
        arrays = [_array(inputs[i], params) for i in range(len(inputs))]
        made = attributes_of(op_type, attr, arrays)
        zero = np.zeros((), np.float32) if op_type == "BipolarQuant" else arrays[2]
        x = inputs[0] if arrays[0] is None else relay.const(arrays[0])
        return int_quant(x, relay.const(arrays[1]), relay.const(zero), made)

    return convert


def _array(expression: Any, params: dict) -> np.ndarray | None:
    """What a constant, or a parameter that the file holds, is; None of anything else."""
    if isinstance(expression, relay.Constant):
        return expression.data.numpy()
    held = params.get(expression.name_hint) if isinstance(expression, relay.Var) else None
    return None if held is None else held.numpy()


_converters = {name: _converter(name) for name in ONNX_NAMES}
_converters_of_tvm = onnx_frontend._get_convert_map


def _with_zero_point(convert: Any):
    """TVM's converter of QuantizeLinear or DequantizeLinear, for which it is optional, as ONNX has it."""

    def with_zero_point(inputs: Any, attr: dict, params: dict) -> Any:
        given = [inputs[i] for i in range(len(inputs))]
        if len(given) < 3 or given[2] is None:
            kind = onnx.helper.tensor_dtype_to_np_dtype(attr.get("output_dtype") or onnx.TensorProto.UINT8)
            given = [*given[:2], relay.const(np.zeros(onnx_frontend.infer_shape(given[1]), kind))]
        return convert(given, attr, params)

    return with_zero_point


def _get_convert_map(opset: int) -> dict[str, Any]:
    made = {**_converters_of_tvm(opset), **_converters}
    return made | {name: _with_zero_point(made[name]) for name in ("QuantizeLinear", "DequantizeLinear")}


onnx_frontend._get_convert_map = _get_convert_map
"""From now on relay.frontend.from_onnx reads QONNX, too, and quantizers without zero points: TVM offers no other way to
add a converter."""


def _restore_mapping() -> None:
    """onnx.mapping, which onnx dropped in 1.19 and TVM 0.19 reads."""
    if "onnx.mapping" in sys.modules or hasattr(onnx, "mapping"):
        return
    mapping, kinds = types.ModuleType("onnx.mapping"), onnx.TensorProto.DataType
    numbers = [number for number in kinds.values() if number != onnx.TensorProto.UNDEFINED]
    mapping.TENSOR_TYPE_TO_NP_TYPE = {n: onnx.helper.tensor_dtype_to_np_dtype(n) for n in numbers}
    mapping.NP_TYPE_TO_TENSOR_TYPE = {kind: n for n, kind in mapping.TENSOR_TYPE_TO_NP_TYPE.items()}
    sys.modules["onnx.mapping"] = onnx.mapping = mapping


_restore_mapping()


def from_onnx(model: Any, shape: dict | None = None, **options: Any) -> tuple[tvm.IRModule, dict]:
    """relay.frontend.from_onnx with parameters frozen: a ModelProto → (module, {}); QONNX's operators become
    mpcompile.int_quant, and tensors of 2 or 4 bits get 8. Raises ModelError where one of those cannot."""
    return onnx_frontend.from_onnx(widened(model), shape, **{"freeze_params": True, **options})
