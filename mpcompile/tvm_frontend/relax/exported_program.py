"""Relax's own importer of PyTorch's exported programs, with converters for what pt2e quantization leaves in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

OPERATORS = ("quantize_per_tensor", "quantize_per_channel", "dequantize_per_tensor", "dequantize_per_channel")
"""torch.ops.quantized_decomposed's: (x, scale, zero point, [axis,] least code, greatest code, dtype)."""


def from_exported_program(program: Any, **options: Any) -> tvm.IRModule:
    """tvm.relax.frontend.torch.from_exported_program: a torch.export.ExportedProgram → a module; what
    torchao.quantization.pt2e (or torch.ao.quantization before it) leaves becomes Relax's quantize and dequantize, with a
    clip between them where codes are fewer than their type has.

    PyTorch's own quantize multiplies by float32(1/scale), Relax's divides by the scale, as ONNX does: where the two fall
    on different sides of a tie, codes differ by one; where scales are powers of two, nowhere.
    Raises what TVM's importer raises.
    """
    from tvm.relax.frontend.torch import from_exported_program as convert  # imports torch

    ours = {f"{name}.{overload}": _converter(name) for name in OPERATORS for overload in ("default", "tensor")}
    return convert(program, **{**options, "custom_convert_map": {**ours, **(options.get("custom_convert_map") or {})}})


def _converter(name: str) -> Any:
    def convert(node: Any, importer: Any) -> relax.Var:
        x, scale, zero, *rest = importer.retrieve_args(node)
        axis = rest.pop(0) if name.endswith("channel") else 0
        low, high, dtype = int(rest[0]), int(rest[1]), str(rest[2]).removeprefix("torch.")
        emit = importer.block_builder.emit
        scale, zero = _tensor(emit, scale, "float32"), _tensor(emit, zero, dtype)
        if name.startswith("dequantize"):
            return emit(relax.op.dequantize(x, scale, zero, axis=axis, out_dtype="float32"))
        codes = emit(relax.op.quantize(x, scale, zero, axis=axis, out_dtype=dtype))
        limits = np.iinfo(dtype)
        if low > limits.min:
            codes = emit(relax.op.maximum(codes, relax.const(low, dtype)))
        if high < limits.max:
            codes = emit(relax.op.minimum(codes, relax.const(high, dtype)))
        return codes

    return convert


def _tensor(emit: Any, value: Any, dtype: str) -> relax.Expr:
    """A number or a tensor, as one of that type."""
    if not isinstance(value, relax.Expr):
        return relax.const(value, dtype)
    kind: Any = value.ty
    return value if str(kind.dtype) == dtype else emit(relax.op.astype(value, dtype))
