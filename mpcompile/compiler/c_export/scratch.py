"""How much scratch memory a kernel asks for while it runs: what a caller must provide, known before anything runs."""

from __future__ import annotations

import tvm

from mpcompile.tvm_names import tirx

ALIGNMENT = 64


@tvm.ir.instrument.pass_instrument
class MeasureScratch:
    """Looks at every function right before its buffers become calls for memory; `bytes`: the most of one of them."""

    def __init__(self):
        self.bytes = 0

    def run_before_pass(self, mod, info) -> None:
        if info.name == "tirx.LowerTVMBuiltin":
            self.bytes = max([self.bytes, *(_most(f.body) for f in mod.functions.values())])


def _most(statement) -> int:
    """Bytes alive at once: what a sequence allocates lives to its end, what its members allocate inside does not."""
    if isinstance(statement, tirx.AllocBuffer):
        return _size(statement.buffer)
    if isinstance(statement, tirx.SeqStmt):
        own = sum(_size(s.buffer) for s in statement.seq if isinstance(s, tirx.AllocBuffer))
        return own + max((_most(s) for s in statement.seq if not isinstance(s, tirx.AllocBuffer)), default=0)
    inner = [getattr(statement, name, None) for name in ("body", "then_case", "else_case")]
    return max((_most(s) for s in inner if s is not None), default=0)


def _size(buffer) -> int:
    """Bytes, aligned. A buffer that the compiler will put on the stack counts too: the sum is a bound."""
    dtype = tvm.DataType(buffer.dtype)
    nbytes = (dtype.bits * dtype.lanes + 7) // 8
    for extent in buffer.shape:
        nbytes *= int(extent)
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
