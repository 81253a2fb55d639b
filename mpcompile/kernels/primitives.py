"""The scalar primitives that depend on what code is generated for: kernels say `fma`, `nearbyint` and `popcount`, a record
of the target's kind says what these are.

As with TVM's own `with target:`, expressions are built inside a scope: `build` opens it, and whatever a kernel calls finds
the primitives there. Dot products are no scalars: an architecture's schedules have them (dot_instruction).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from mpcompile.kernels.late_tvm import tirx
from mpcompile.targets.registry import Registry


class Primitives(Protocol):
    """Expressions of TIR."""

    def fma(self, x: Any, a: Any, b: Any) -> Any:
        """x·a + b of float32, rounded once."""
        ...

    def nearbyint(self, x: Any) -> Any:
        """float32, to the nearest whole number, ties to even."""
        ...

    def popcount(self, word: Any) -> Any:
        """How many bits are set, in the word's own dtype."""
        ...


class LlvmPrimitives:
    """What LLVM makes instructions of, on any CPU."""

    def fma(self, x: Any, a: Any, b: Any) -> Any:
        """An instruction where the target has one, else the C library's exact fmaf. Not `tirx.fma`, which is LLVM's
        fmuladd, and that may be rounded twice."""
        from mpcompile.kernels.tvm_names import llvm_intrin

        return llvm_intrin("float32", "llvm.fma", 3, x, a, b)

    def nearbyint(self, x: Any) -> Any:
        """Not `tirx.nearbyint`, with which TVM makes no loop a vector's, and fails at a Let in such a loop."""
        from mpcompile.kernels.tvm_names import llvm_intrin

        return llvm_intrin("float32", "llvm.nearbyint", 1, x)

    def popcount(self, word: Any) -> Any:
        return tirx.popcount(word)


class CudaPrimitives:
    """Instructions of every CUDA device."""

    def fma(self, x: Any, a: Any, b: Any) -> Any:
        return tirx.call_pure_extern("float32", "__fmaf_rn", x, a, b)

    def nearbyint(self, x: Any) -> Any:
        """Of the one rounding mode that CUDA has."""
        return tirx.call_pure_extern("float32", "rintf", x)

    def popcount(self, word: Any) -> Any:
        """Of 32 bits: CUDA has no other that is one instruction."""
        dtype = getattr(word, "dtype", None) or str(word.ty)
        return tirx.popcount(word.astype("uint32")).astype(dtype)


PRIMITIVES: Registry[Primitives] = Registry(
    "primitives for devices of kind", {"cpu": LlvmPrimitives(), "cuda": CudaPrimitives()}
)

_scope: ContextVar[Primitives] = ContextVar("primitives")


@contextmanager
def primitives_of(kind: str) -> Iterator[Primitives]:
    """The scope in which kernels for that kind are expressed. Raises TargetError where there is no such kind."""
    found = PRIMITIVES.of(kind)
    token = _scope.set(found)
    try:
        yield found
    finally:
        _scope.reset(token)


def fma(x: Any, a: Any, b: Any) -> Any:
    """x·a + b of float32, rounded once. Raises LookupError outside a scope of `primitives_of`."""
    return _scope.get().fma(x, a, b)


def nearbyint(x: Any) -> Any:
    """float32, to the nearest whole number, ties to even. Raises LookupError outside a scope of `primitives_of`."""
    return _scope.get().nearbyint(x)


def popcount(word: Any) -> Any:
    """How many bits are set, in the word's own dtype. Raises LookupError outside a scope of `primitives_of`."""
    return _scope.get().popcount(word)
