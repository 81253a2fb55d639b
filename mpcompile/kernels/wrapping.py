"""Sums, differences and products of int32 mod 2³².

TVM tells LLVM that int32 never overflows, and LLVM may then assume it. In 64 bits these do not; cutting off the upper half
again leaves one instruction of 32 bits.
"""

from __future__ import annotations

from typing import Any

from mpcompile.kernels.late_tvm import tirx


def wrapped_sum(a: Any, b: Any, lanes: int = 1) -> Any:
    """Of two vectors of so many lanes, or of two numbers; as the others."""
    return _cut(_wide(a, lanes) + _wide(b, lanes), lanes)


def wrapped_difference(a: Any, b: Any, lanes: int = 1) -> Any:
    return _cut(_wide(a, lanes) - _wide(b, lanes), lanes)


def wrapped_product(a: Any, n: int) -> Any:
    """Of a number with a constant, which may be given mod 2³²."""
    return _cut(_wide(a, 1) * tirx.const((n + (1 << 31)) % (1 << 32) - (1 << 31), "int64"), 1)


def _wide(a: Any, lanes: int) -> Any:
    return a.astype("int64" if lanes == 1 else f"int64x{lanes}")


def _cut(a: Any, lanes: int) -> Any:
    return a.astype("int32" if lanes == 1 else f"int32x{lanes}")
