"""The scalar primitives that depend on what code is generated for: kernels say `fma` and `popcount`, a record of the
target's kind says what these are.

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

    def popcount(self, word: Any) -> Any:
        return tirx.popcount(word)


class CudaPrimitives:
    """Instructions of every CUDA device."""

    def fma(self, x: Any, a: Any, b: Any) -> Any:
        return tirx.call_pure_extern("float32", "__fmaf_rn", x, a, b)

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


def popcount(word: Any) -> Any:
    """How many bits are set, in the word's own dtype. Raises LookupError outside a scope of `primitives_of`."""
    return _scope.get().popcount(word)
