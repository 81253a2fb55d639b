"""Attributes of Relax's operators as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

_OF_ALL_ATTRS = frozenset(dir(tvm.ir.Attrs))


def attributes(attrs: Any) -> dict[str, Any]:
    """Plain Python values of all fields."""
    if isinstance(attrs, tvm.ir.DictAttrs):
        return {str(key): plain_of(value) for key, value in attrs.items()}
    return {n: plain_of(getattr(attrs, n)) for n in dir(attrs) if not n.startswith("_") and n not in _OF_ALL_ATTRS}


def plain_of(value: Any) -> Any:
    if isinstance(value, tvm.tirx.IntImm | tvm.tirx.FloatImm):
        return value.value
    if isinstance(value, relax.ShapeExpr):
        return tuple(plain_of(v) for v in value.values)
    if isinstance(value, Mapping):
        return {str(k): plain_of(v) for k, v in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return tuple(plain_of(v) for v in value)
    return str(value)
