"""Calls in order, before anything has a place: each step names a function and the bytes that it reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpcompile.compiler.weights_block import WeightsBlock
from mpcompile.errors import ModelError
from mpcompile.ir.plan import Arg
from mpcompile.kernels.tvm_names import PrimFunc, buffer_of

Parameter = tuple[str, tuple[int, ...]]
"""dtype and shape of a tensor argument."""


@dataclass(eq=False)
class Store:
    """Some bytes: a model input, a constant, or what a step writes. `space` and `offset` as in ir.plan.Arg; what lies in
    the workspace has no offset until it is placed. `written`: the step that writes it, −1 for none; `last_read`: the
    last step that reads it, or else writes it."""

    nbytes: int
    space: str = "workspace"
    offset: int = 0
    written: int = -1
    last_read: int = -1

    def arg(self, dtype: str, shape: tuple[int, ...]) -> Arg:
        """These bytes as a tensor of that dtype and shape."""
        return Arg(self.space, self.offset, dtype, shape)


@dataclass(frozen=True, eq=False)
class Step:
    """function(*args). `layer`: the node that it is for. `args`: a store for each of `parameters`, what is written
    last."""

    function: str
    layer: str
    parameters: tuple[Parameter, ...]
    args: tuple[Store, ...]


class Steps:
    """Collects the steps of a plan, in order. `written`: what they write, in order; `functions`: name → PrimFunc, in
    the order of the first call; `weights`: the constants, in the order in which they are needed."""

    def __init__(self):
        self.steps: list[Step] = []
        self.written: list[Store] = []
        self.functions: dict[str, PrimFunc] = {}
        self.weights = WeightsBlock()
        self._constants: dict[int, Store] = {}

    def constant(self, array: np.ndarray) -> Store:
        """The store of a constant; one of the same bytes is the same store."""
        offset = self.weights.add(array)
        return self._constants.setdefault(offset, Store(array.nbytes, "weights", offset))

    def call(
        self, name: str, function: PrimFunc, args: Sequence[Store], nbytes: Sequence[int], layer: str
    ) -> list[Store]:
        """Adds a step that reads `args`; the stores that it writes, of `nbytes` each. Raises ModelError naming the layer
        where the function takes other sizes."""
        at, results = len(self.steps), [Store(n) for n in nbytes]
        for store in args:
            store.last_read = at
        for store in results:
            store.written = store.last_read = at
        everything, taken = (*args, *results), parameters(function)
        given, sizes = [store.nbytes for store in everything], [_nbytes(p) for p in taken]
        if sizes != given:
            raise ModelError(f"node {layer}: {name} takes {sizes} bytes, it is given {given}")
        self.functions.setdefault(name, function)
        self.written += results
        self.steps.append(Step(name, layer, taken, everything))
        return results


def parameters(function: PrimFunc) -> tuple[Parameter, ...]:
    """(dtype, shape) of each argument of a PrimFunc over tensors."""
    buffers = [buffer_of(function, i) for i in range(len(function.params))]
    return tuple((str(b.dtype), tuple(int(n) for n in b.shape)) for b in buffers)


def _nbytes(parameter: Parameter) -> int:
    dtype, shape = parameter
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
