"""The legalised module to the static plan: calls in order, offsets of all buffers, one block of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tvm
from tvm import relax

from mpcompile.compiler.emit import Emitted
from mpcompile.compiler.offsets import Interval, aligned, live_bytes, place
from mpcompile.compiler.relax_ops import VIEWS, parameters
from mpcompile.errors import ModelError
from mpcompile.ir.graph import Graph
from mpcompile.ir.plan import Arg, Call, Placed, Plan, Port
from mpcompile.kernels.tvm_names import prim_func, te, tirx

CALL_TIR = "relax.call_tir"


@dataclass
class Planned:
    """`functions`: name → PrimFunc, everything that the plan calls."""

    plan: Plan
    weights: bytes
    functions: dict[str, tirx.PrimFunc]


@dataclass(frozen=True)
class PlanMemory:
    """Before: `main` consists of call_tir, tuples and views (`reshape`, `memory.view`). After: a Plan and its weights
    block.

    A view is the same bytes, so costs nothing; equal constants are stored once; a model output is written straight
    into the caller's array. An output that is a model input, a constant or another output's bytes gets a copying call.
    """

    graph: Graph

    def apply(self, emitted: Emitted) -> Planned:
        return _Planner(self.graph, emitted).planned()


@dataclass(eq=False)
class _Store:
    """Some bytes: a model input, a constant, or what a call writes. `names`: variables that mean them."""

    nbytes: int
    written: int = -1
    last_read: int = -1
    space: str = "workspace"
    offset: int = 0
    names: list[str] = field(default_factory=list)


@dataclass
class _Step:
    function: str
    params: list[tuple[str, tuple[int, ...]]]
    args: list[_Store]
    names: list[str]


class _Planner:
    def __init__(self, graph: Graph, emitted: Emitted):
        self.graph, self.emitted = graph, emitted
        self.known: dict = {}
        self.steps: list[_Step] = []
        self.stores: list[_Store] = []
        self.constants: dict[bytes, _Store] = {}
        self.weights = bytearray()
        self.functions: dict[str, tirx.PrimFunc] = {}

    def planned(self) -> Planned:
        main = self.emitted.mod["main"]
        for i, param in enumerate(main.params):
            self._define(param, _Store(_nbytes(param.ty), space="input", offset=i))
        for block in main.body.blocks:
            for binding in block.bindings:
                self._define(binding.var, self._value(binding.value, binding.var.name))
        self._outputs(self._value(main.body.body, "the result"))
        live, size = self._place()
        plan = Plan(
            tuple(Port(t, self.graph.types[t].shape) for t in self.graph.inputs),
            tuple(Port(t, self.graph.types[t].shape) for t in self.graph.outputs),
            tuple(self._call(i, step) for i, step in enumerate(self.steps)),
            self._buffers(),
            size,
            live,
        )
        return Planned(plan, bytes(self.weights), self.functions)

    # -- what each variable is -----------------------------------------------------------------------------
    def _define(self, var: relax.Var, what) -> None:
        self.known[var] = what
        if isinstance(what, _Store):
            what.names.append(var.name)

    def _value(self, value: relax.Expr, name: str):
        """A _Store, or a list of them for a tuple."""
        match value:
            case relax.Var():
                return self.known[value]
            case tvm.ir.GenericConst():
                return self._constant(value.value.numpy())
            case relax.Tuple():
                return [self._value(v, name) for v in value.fields]
            case relax.TupleGetItem():
                return self._value(value.tuple_value, name)[value.index]
            case relax.Call():
                operator = value.op.name if isinstance(value.op, tvm.ir.Op) else str(value.op)
                if operator in VIEWS:
                    return self._value(value.args[0], name)
                if operator == CALL_TIR and len(value.args) == 2:
                    return self._step(value, name)
                raise ModelError(f"node {self._node([name]) or name}: TVM has no kernel for {operator}")
        raise ModelError(f"node {self._node([name]) or name}: {type(value).__name__} has no place in a plan")

    def _constant(self, array: np.ndarray) -> _Store:
        data = np.ascontiguousarray(array).tobytes()
        if data not in self.constants:
            self.weights += bytes(aligned(len(self.weights)) - len(self.weights))
            self.constants[data] = _Store(len(data), space="weights", offset=len(self.weights))
            self.weights += data
        return self.constants[data]

    def _step(self, call: relax.Call, name: str):
        gvar, args = call.args[0], [self._value(a, name) for a in call.args[1].fields]
        function = self.emitted.mod[gvar]
        kinds = list(call.ty_args[0].fields) if isinstance(call.ty_args[0], relax.TupleType) else [call.ty_args[0]]
        results = [_Store(_nbytes(kind)) for kind in kinds]
        self.stores += results
        self._add(gvar.name_hint, function, args, results, name)
        return results if isinstance(call.ty_args[0], relax.TupleType) else results[0]

    def _add(
        self, function_name: str, function: tirx.PrimFunc, args: list[_Store], results: list[_Store], name: str
    ) -> None:
        at = len(self.steps)
        for store in args:
            store.last_read = at
        for store in results:
            store.written = store.last_read = at
        params = parameters(function)
        everything = args + results
        sizes = [int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for dtype, shape in params]
        if sizes != [store.nbytes for store in everything]:
            raise ModelError(
                f"node {self._node([name]) or name}: {function_name} takes {sizes} bytes, "
                f"it is given {[store.nbytes for store in everything]}"
            )
        self.functions[function_name] = function
        self.steps.append(_Step(function_name, params, everything, [name]))

    # -- where it goes ---------------------------------------------------------------------------------------
    def _outputs(self, results: Sequence[_Store]) -> None:
        for i, (tensor, store) in enumerate(zip(self.graph.outputs, results)):
            if store.space != "workspace":
                copied = _Store(store.nbytes)
                self.stores.append(copied)
                function = _copy(store.nbytes // 4)
                self._add(f"mp_copy_{store.nbytes // 4}", function, [store], [copied], tensor)
                store = copied
            store.space, store.offset = "output", i

    def _place(self) -> tuple[int, int]:
        """Gives workspace stores their offsets; live bytes and size of the workspace."""
        here = [s for s in self.stores if s.space == "workspace"]
        intervals = [Interval(s.nbytes, s.written, s.last_read) for s in here]
        offsets, size = place(intervals)
        for store, offset in zip(here, offsets):
            store.offset = offset
        return live_bytes(intervals), size

    def _call(self, index: int, step: _Step) -> Call:
        args = tuple(Arg(s.space, s.offset, dtype, shape) for s, (dtype, shape) in zip(step.args, step.params))
        names = step.names + [n for s in step.args if s.written == index for n in s.names]
        return Call(step.function, self._node(names) or step.function, args)

    def _node(self, names: list[str]) -> str | None:
        return next((self.emitted.nodes[n] for n in names if n in self.emitted.nodes), None)

    def _buffers(self) -> tuple[Placed, ...]:
        placed = []
        for var, what in self.known.items():
            buffer = self.emitted.buffers.get(var.name)
            if buffer is not None and isinstance(what, _Store) and what.space != "weights":
                arg = Arg(what.space, what.offset, buffer.dtype, buffer.buffer_shape)
                placed.append(Placed(buffer, arg, what.written, what.last_read))
        return tuple(placed)


def _nbytes(kind: relax.TensorType) -> int:
    return int(np.prod([int(n) for n in kind.shape.values], dtype=np.int64)) * np.dtype(str(kind.dtype)).itemsize


def _copy(count: int) -> tirx.PrimFunc:
    source = te.placeholder((count,), "float32", "source")
    return prim_func([source, te.compute((count,), lambda i: source[i], name="copied")], f"mp_copy_{count}")
