"""A lowered Relax function to a list of calls over its inputs, constants and what the calls before wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from mpcompile.compiler.float_regions.regions import Region
from mpcompile.errors import ModelError

VIEW = "relax.reshape"
"""The operator that stays one: the same bytes under another shape."""
_CALL = "relax.call_tir"


@dataclass(frozen=True)
class Input:
    """The region's input of that number."""

    index: int


@dataclass(frozen=True)
class Constant:
    """RegionCode.constants[index]."""

    index: int


@dataclass(frozen=True)
class Written:
    """What call number `call` writes as its result number `index`."""

    call: int
    index: int


Value = Input | Constant | Written


@dataclass(frozen=True, eq=False)
class RegionCall:
    """function(*args, *results): `function` names a PrimFunc of the module, `nbytes` are the results' sizes. `node`: a
    node of the region that the call is for; the function's name where it is for parts of several."""

    function: str
    node: str
    args: tuple[Value, ...]
    nbytes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class RegionCode:
    """The calls in order, the constants in the order in which the calls need them, and where each of the region's
    results is."""

    calls: tuple[RegionCall, ...]
    constants: tuple[np.ndarray, ...]
    results: tuple[Value, ...]


def read(region: Region, function: Any, nodes: Mapping[Any, str]) -> RegionCode:
    """`function`: the region's, in which nothing is left but call_tir, tuples and reshapes. `nodes`: variables that
    were emitted → their node. Raises ModelError naming an operator for which TVM has no kernel."""
    return _Reader(region, function, nodes).code()


class _Reader:
    def __init__(self, region: Region, function: Any, nodes: Mapping[Any, str]):
        self.region, self.function, self.nodes = region, function, nodes
        self.known: dict[Any, Value | list[Value]] = {}
        self.calls: list[RegionCall] = []
        self.constants: list[np.ndarray] = []

    def code(self) -> RegionCode:
        for i, parameter in enumerate(self.function.params):
            self.known[parameter] = Input(i)
        for block in self.function.body.blocks:
            for binding in block.bindings:
                self.known[binding.var] = self._value(binding.value, binding.var)
        results = self._value(self.function.body.body, None)
        assert isinstance(results, list) and len(results) == len(self.region.results), "the function returns a tuple"
        return RegionCode(tuple(self._labelled(results)), tuple(self.constants), tuple(results))

    def _value(self, value: Any, variable: Any) -> Value | list[Value]:
        """What `value` is, which is bound to `variable`; a list for a tuple."""
        match value:
            case relax.Var():
                return self.known[value]
            case tvm.ir.GenericConst():
                self.constants.append(value.value.numpy())  # pyright: ignore[reportAttributeAccessIssue]
                return Constant(len(self.constants) - 1)
            case relax.Tuple():
                return [self._one(v, variable) for v in value.fields]
            case relax.TupleGetItem():
                fields = self._value(value.tuple_value, variable)
                assert isinstance(fields, list)
                return fields[value.index]
            case relax.Call():
                operator = getattr(value.op, "name", str(value.op))
                if operator == VIEW:
                    return self._value(value.args[0], variable)
                if operator == _CALL and len(value.args) == 2:
                    return self._call(value, variable)
                raise ModelError(f"node {self._name(variable)}: TVM has no kernel for {operator}")
        raise ModelError(f"node {self._name(variable)}: {type(value).__name__} has no place in a plan")

    def _one(self, value: Any, variable: Any) -> Value:
        found = self._value(value, variable)
        assert not isinstance(found, list), "a tuple of tuples"
        return found

    def _call(self, call: Any, variable: Any) -> Value | list[Value]:
        args = tuple(self._one(a, variable) for a in call.args[1].fields)
        (kind,) = call.ty_args
        several = isinstance(kind, relax.TupleType)
        sizes = tuple(_nbytes(k) for k in (kind.fields if several else [kind]))  # pyright: ignore[reportAttributeAccessIssue]
        written: list[Value] = [Written(len(self.calls), i) for i in range(len(sizes))]
        self.calls.append(RegionCall(call.args[0].name_hint, self.nodes.get(variable, ""), args, sizes))
        return written if several else written[0]

    def _labelled(self, results: list[Value]) -> list[RegionCall]:
        """The calls, those without a node with that of the first result that they write."""
        writer = {t: n.name for n in self.region.nodes for t in n.outputs}
        first: dict[int, str] = {}
        for tensor, value in zip(self.region.results, results):
            if isinstance(value, Written):
                first.setdefault(value.call, writer[tensor])
        return [
            RegionCall(c.function, c.node or first.get(i, c.function), c.args, c.nbytes)
            for i, c in enumerate(self.calls)
        ]

    def _name(self, variable: Any) -> str:
        names = ", ".join(n.name for n in self.region.nodes)
        return self.nodes.get(variable, f"of {names}") if variable is not None else f"of {names}"


def _nbytes(kind: Any) -> int:
    """Bytes of a tensor of that Relax type."""
    return int(np.prod([int(n) for n in kind.shape.values], dtype=np.int64)) * np.dtype(str(kind.dtype)).itemsize
