"""What a PrimFunc does that a frontend made of a tensor expression, where that is one operator: a maximum or minimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad

from mpcompile.kernels.tvm_names import buffer_of

OPERATORS = {tirx.Max: "maximum", tirx.Min: "minimum"}


def operator_of(function: Any) -> tuple[str, float | None] | None:
    """("maximum", None) of a function whose last buffer gets, element by element, the greater of its first and its second,
    which is a single number; ("maximum", 0.5) where the number is in the function; None of any other function."""
    stores: list[Any] = []
    tvm_ffi.structural_map(function.body, [(tirx.BufferStore, lambda store: stores.append(store) or store)])
    buffers = [buffer_of(function, i) for i in range(len(function.params))]
    if len(stores) != 1 or not buffers:
        return None
    (store,) = stores
    op = OPERATORS.get(type(store.value))
    if op is None or not store.buffer.same_as(buffers[-1]):
        return None
    x, bound = store.value.a, store.value.b
    if not _reads(x, buffers[0], store.indices) or list(buffers[0].shape) != list(buffers[-1].shape):
        return None
    if isinstance(bound, tirx.IntImm | tirx.FloatImm) and len(buffers) == 2:
        return op, float(bound.value)
    single = len(buffers) == 3 and isinstance(bound, TensorLoad) and bound.source.same_as(buffers[1])
    return (op, None) if single and int(np.prod([int(n) for n in buffers[1].shape])) == 1 else None


def _reads(value, buffer, indices) -> bool:
    return (
        isinstance(value, TensorLoad)
        and value.source.same_as(buffer)
        and len(value.indices) == len(indices)
        and all(a.same_as(b) for a, b in zip(value.indices, indices))
    )
