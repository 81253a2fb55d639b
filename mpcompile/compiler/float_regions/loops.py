"""Loop nests written statement by statement, with vectors where they are wanted: kernels that TVM's schedules
cannot cut so.

Every tensor is flat here. A vector is a loop of lanes; LLVM keeps small local arrays in registers where each place in them
is a constant, which is why lanes and tiles are unrolled by the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from mpcompile.kernels.tvm_names import PrimFunc, tirx

PARALLEL_FROM = 1 << 14
"""Steps of work from which starting threads pays."""
IN_REGISTERS = 256
"""Elements of an array that LLVM may keep in registers."""
Index = Any
"""A Python int or an expression of int32."""


@dataclass(frozen=True)
class Array:
    """A flat float32 buffer."""

    buffer: Any

    def __getitem__(self, at: Index) -> Any:
        return tirx.BufferLoad(self.buffer, [at])


class Loops:
    """Collects statements; `loop` and `lanes` open a loop that the statements inside go into."""

    def __init__(self, lanes: int):
        self.width = lanes
        self._open: list[list[Any]] = [[]]
        self._names = 0

    def name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    @contextmanager
    def loop(self, extent: int, kind: Any = tirx.ForKind.SERIAL) -> Iterator[Any]:
        """`extent` times, with the number of the turn: 0 where there is but one."""
        if extent == 1 and kind != tirx.ForKind.VECTORIZED:
            yield 0
            return
        variable = tirx.Var(self.name("i"), "int32")
        self._open.append([])
        yield variable
        body = self._sequence(self._open.pop())
        self._open[-1].append(tirx.For(variable, 0, extent, kind, body))

    def shared(self, extent: int, work: float):
        """A loop whose turns threads share, where there is so much work."""
        return self.loop(extent, tirx.ForKind.PARALLEL if work >= PARALLEL_FROM else tirx.ForKind.SERIAL)

    def lanes(self, count: int):
        """A vector: `count` lanes."""
        return self.loop(count, tirx.ForKind.VECTORIZED if count > 1 else tirx.ForKind.SERIAL)

    def each(self, extent: int, widest: int, body: Callable[[Index, int], None]) -> None:
        """body(first, lanes) over 0 … extent − 1 in vectors: as many of `widest` lanes as there are, then half as wide
        ones and so on for the rest, so that any extent is vectors nearly throughout."""
        done, lanes = 0, widest
        while done < extent:
            turns = (extent - done) // lanes
            if turns:
                with self.loop(turns) as turn:
                    body(turn * lanes + done, lanes)
                done += turns * lanes
            lanes = max(1, lanes // 2)

    def fill(self, array: Array, first: Index, extent: int, value: Callable[[Index], Any], widest: int = 0) -> None:
        """array[first + i] = value(i) for i below `extent`, in vectors."""

        def some(at: Index, lanes: int) -> None:
            with self.lanes(lanes) as lane:
                self.store(array, first + at + lane, value(at + lane))

        self.each(extent, widest or self.width, some)

    def local(self, size: int) -> Array:
        """An array that lives from here to the end of the loop."""
        scope = "local" if size <= IN_REGISTERS else "global"
        buffer = tirx.decl_buffer((size,), "float32", self.name("t"), scope=scope)
        self._open[-1].append(tirx.AllocBuffer(buffer))
        return Array(buffer)

    def store(self, array: Array, at: Index, value: Any) -> None:
        self._open[-1].append(tirx.BufferStore(array.buffer, value, [at]))

    def function(self, shapes: Sequence[Sequence[int]], body: Callable[..., None]) -> PrimFunc:
        """A PrimFunc over float32 tensors of these shapes, inputs first; `body` writes it, given their arrays."""
        buffers = [tirx.decl_buffer(tuple(shape) or (1,), "float32", f"p{i}") for i, shape in enumerate(shapes)]
        flat = [
            tirx.decl_buffer((prod(b.shape[i] for i in range(len(b.shape))),), "float32", f"f{i}", data=b.data)
            for i, b in enumerate(buffers)
        ]
        self._open[-1].extend(tirx.DeclBuffer(f, data=b.data) for f, b in zip(flat, buffers))
        body(*(Array(f) for f in flat))
        made = tirx.PrimFunc(buffers, self._sequence(self._open[-1]))
        return made.with_attr({"tirx.noalias": True, WRITTEN: True, "s_tir": True})

    @staticmethod
    def _sequence(statements: list[Any]) -> Any:
        return statements[0] if len(statements) == 1 else tirx.SeqStmt(statements)


WRITTEN = "mpcompile.written"
"""Attribute of a PrimFunc that is no nest of TVM's, to be scheduled, but written so."""
