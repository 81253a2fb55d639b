"""What a definition computes, and whether it reads past what it reads from, be it a value that nobody uses: no guard page
sees all of these."""

from __future__ import annotations

from typing import Any

import tvm

from mpcompile.kernels import tvm_names
from mpcompile.kernels.tvm_names import IS_TIRX, PrimFunc, SBlock, TensorLoad, tirx

_Analyzer, _Call = (tvm.sym.Analyzer, tvm.ir.Call) if IS_TIRX else (tvm.arith.Analyzer, tirx.Call)  # pyright: ignore


def computed(function: PrimFunc) -> set[str]:
    """The names of its stages."""
    found = set()
    tvm_names._map_nodes(function.body, [(SBlock, lambda block: found.add(block.name_hint) or block)])
    return found - {"root"}


def reads_beyond(function: PrimFunc) -> list[str]:
    """Each index of a PrimFunc that is not scheduled which may leave its axis, as text; where one is read only under a
    condition, of all that it allows. Indices that are themselves read from a table are taken for right."""
    analyzer, found = _Analyzer(), []

    def bind(block):
        for axis in block.iter_vars:
            analyzer.bind(axis.var, axis.dom)
        return block

    def look(load):
        found.extend((load, text) for text in beyond(load))
        return load

    def beyond(load) -> list[str]:
        buffer = load.source if IS_TIRX else load.buffer
        bounds = [(analyzer.const_int_bound(index), index) for index in load.indices]
        return [
            f"{buffer.name} axis {axis}: {index} of {extent}"
            for axis, ((bound, index), extent) in enumerate(zip(bounds, buffer.shape))
            if (bound.min_value < 0 or bound.max_value >= int(extent)) and not _loads(index)
        ]

    def under_condition(call):
        if getattr(call.op, "name", "").endswith(".if_then_else"):
            with analyzer.constraint_scope(call.args[0]):
                right = [load for load in _loads(call.args[1]) if not beyond(load)]
            found[:] = [(load, text) for load, text in found if not any(load.same_as(r) for r in right)]
        return call

    tvm_names._map_nodes(function.body, [(SBlock, bind)])
    tvm_names._map_nodes(function.body, [(TensorLoad, look), (_Call, under_condition)])
    return [text for _, text in found]


def _loads(expression) -> list[Any]:
    found = []
    tvm_names._map_nodes(expression, [(TensorLoad, lambda load: found.append(load) or load)])
    return found
