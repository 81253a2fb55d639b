"""Relax's own ONNX importer, with converters for QONNX's operators."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.relax.frontend.onnx import onnx_frontend

from mpcompile.tvm_frontend.int_quant import ONNX_NAMES, attributes_of
from mpcompile.tvm_frontend.narrow_types import widened
from mpcompile.tvm_frontend.relax.operators import int_quant
from mpcompile.tvm_frontend.relax.read import constant


def _converter(op_type: str) -> type:
    class Converter(onnx_frontend.OnnxOpConverter):
        """A QONNX quantizer → mpcompile.int_quant."""

        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: dict, params: Any) -> Any:
            held: list[Any] = [onnx_frontend.get_constant(inputs[i], params) for i in range(len(inputs))]
            arrays = [constant(h).array if isinstance(h, tvm.ir.GenericConst) else None for h in held]
            scale = held[1]
            zero = tvm.relax.const(arrays[1] * 0) if op_type == "BipolarQuant" and arrays[1] is not None else held[2]
            return int_quant(inputs[0], scale, zero, attributes_of(op_type, attr, arrays))

    return Converter


_converters = {name: _converter(name) for name in ONNX_NAMES}
_converters_of_tvm = onnx_frontend._get_convert_map


def _get_convert_map() -> dict[str, type]:
    return {**_converters_of_tvm(), **_converters}


onnx_frontend._get_convert_map = _get_convert_map
"""From now on tvm.relax.frontend.onnx.from_onnx reads QONNX, too: TVM offers no other way to add a converter."""


def from_onnx(model: Any, **options: Any) -> tvm.IRModule:
    """tvm.relax.frontend.onnx.from_onnx: a ModelProto → a module; QONNX's operators become mpcompile.int_quant, and tensors
    of 2 or 4 bits get 8. Raises ModelError where one of those cannot."""
    wide: Any = widened(model)  # TVM's annotation is another one than its docstring
    return onnx_frontend.from_onnx(wide, **options)
