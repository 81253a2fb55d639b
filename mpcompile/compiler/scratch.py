"""Scratch memory of kernels, for what goes from one of their steps to the next: on the stack of the thread that runs them.

TVM leaves buffers of less than 1 KiB there, and asks the runtime for others each time that a loop comes by: up to 14 %
of a layer of 64 channels, measured on Zen 4. The stack costs nothing, each thread has its own, and LLVM knows that
nobody else writes there.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi

from mpcompile.compiler.offsets import aligned
from mpcompile.kernels.tvm_names import PrimFunc, tirx

STACK = 16 * 1024
"""Bytes that the buffers of a kernel may take of a stack, the smallest first. Larger ones are filled so slowly that a call
for them does not count."""
ON_STACK = "disable_lower_builtin"
"""TVM's annotation of a buffer that shall not become calls for memory."""


def use_stack(function: PrimFunc) -> PrimFunc:
    """The same function, its buffers marked that go on the stack. It is lowered but for such calls."""
    found: list[Any] = []
    _each_allocation(function.body, lambda node: found.append(node) or node)
    room, chosen = STACK, []
    for node in sorted(found, key=lambda node: nbytes(node.buffer)):
        room -= nbytes(node.buffer)
        if room >= 0:
            chosen.append(node.buffer)

    def mark(node: Any) -> Any:
        if not any(node.buffer.same_as(buffer) for buffer in chosen):
            return node
        return tirx.AllocBuffer(node.buffer, {**(node.annotations or {}), ON_STACK: tirx.const(True, "bool")})

    return function.with_body(_each_allocation(function.body, mark))


@tvm.ir.instrument.pass_instrument
class MeasureScratch:
    """Looks at every function right before its buffers become calls for memory; it may be asked from several threads."""

    def __init__(self):
        self._found: list[tuple[int, int]] = []

    @property
    def bytes(self) -> int:
        """The most that a function asks for while it runs, which a caller must provide."""
        return max((asked for asked, _ in self._found), default=0)

    @property
    def stack(self) -> int:
        """The most that a function's buffers take of the stack."""
        return max((kept for _, kept in self._found), default=0)

    def run_before_pass(self, mod, info) -> None:
        if info.name == "tirx.LowerTVMBuiltin":
            for function in mod.functions.values():
                kept: list[int] = []
                _each_allocation(function.body, lambda n: kept.append(nbytes(n.buffer) * _on_stack(n)) or n)
                self._found.append((_asked_for(function.body), sum(kept)))


def _asked_for(statement) -> int:
    """Bytes alive at once: what a sequence allocates lives to its end, what its members allocate inside does not."""
    if isinstance(statement, tirx.AllocBuffer):
        return 0 if _on_stack(statement) else nbytes(statement.buffer)
    if isinstance(statement, tirx.SeqStmt):
        own = sum(_asked_for(s) for s in statement.seq if isinstance(s, tirx.AllocBuffer))
        return own + max((_asked_for(s) for s in statement.seq if not isinstance(s, tirx.AllocBuffer)), default=0)
    inner = [getattr(statement, name, None) for name in ("body", "then_case", "else_case")]
    return max((_asked_for(s) for s in inner if s is not None), default=0)


def nbytes(buffer: Any) -> int:
    """Bytes, aligned."""
    dtype = tvm.DataType(buffer.dtype)
    size = (dtype.bits * dtype.lanes + 7) // 8
    for extent in buffer.shape:
        size *= int(extent)
    return aligned(size)


def _on_stack(node: Any) -> bool:
    return ON_STACK in (node.annotations or {})


def _each_allocation(statement, visit):
    return tvm_ffi.structural_map(statement, [(tirx.AllocBuffer, visit)])
