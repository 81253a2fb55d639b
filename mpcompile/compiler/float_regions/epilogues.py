"""Elementwise operators behind a written kernel into it: bias, activation, skip are computed of the sums in registers.

Before: FuseOps and FuseTIR have made one PrimFunc of a chain of elementwise operators. After: where such a PrimFunc is all
that reads a written kernel's result, the kernel is written anew with it, and both calls are one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm_ffi
from tvm import relax

from mpcompile.compiler.float_regions.loops import Array, Index
from mpcompile.kernels.tvm_names import PrimFunc, Schedule, TensorLoad, tirx

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Epilogue:
    """of(value, element, index, arrays): what is stored of a value that belongs at `element` of the flat result, at `index`
    of its axes (None: an index that the kernel does not know). arrays: `shapes`, which the kernel reads besides."""

    shapes: tuple[Shape, ...]
    of: Callable[[Any, Index, Sequence[Index | None], Sequence[Array]], Any]


NOTHING = Epilogue((), lambda value, element, index, arrays: value)


@dataclass(frozen=True)
class Written:
    """make(epilogue): the kernel with it. `known`: axes of the result of whose index the kernel knows."""

    make: Callable[[Epilogue], PrimFunc]
    known: frozenset[int]


def merge(mod: Any, written: Mapping[str, Written]) -> Any:
    """An IRModule. `written`: kernels of the module that may have epilogues, by their names."""
    builder: Any = relax.BlockBuilder(mod)
    for gvar, function in list(mod.functions.items()):
        if isinstance(function, relax.Function):
            builder.update_func(gvar, _merged(mod, function, written, builder))
    return relax.transform.DeadCodeElimination()(builder.get())


def _merged(mod: Any, function: Any, written: Mapping[str, Written], builder: Any) -> Any:
    blocks = []
    for block in function.body.blocks:
        bindings = list(block.bindings)
        read = _readers(bindings, function.body.body)
        for first in list(bindings):
            name = _called(first.value)
            readers = read.get(first.var, [])
            if name not in written or len(readers) != 1 or readers[0] is None:
                continue
            (second,) = readers
            kernel, other = written[name], _called(second.value)
            body = mod[other] if other else None
            made = _epilogue(body, second.value, first.var, kernel.known) if isinstance(body, PrimFunc) else None
            if made is None:
                continue
            epilogue, besides = made
            args = [*first.value.args[1].fields, *besides]
            gvar = builder.add_func(kernel.make(epilogue), f"{name}_{other.removeprefix('fused_')}")
            call = relax.call_tir(gvar, relax.Tuple(args), second.value.ty_args[0])
            bindings[bindings.index(second)] = relax.VarBinding(second.var, call)
            bindings.remove(first)
        dataflow = isinstance(block, relax.DataflowBlock)
        blocks.append(relax.DataflowBlock(bindings) if dataflow else relax.BindingBlock(bindings))
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs)


def _readers(bindings: Sequence[Any], result: Any) -> dict[Any, list[Any]]:
    """Variable → bindings that read it, each once; None stands for what is no call of a PrimFunc, and for the result."""
    read: dict[Any, list[Any]] = {}

    def note(variable: Any, by: Any) -> None:
        if by not in read.setdefault(variable, []):
            read[variable].append(by)

    for binding in bindings:
        by = binding if _called(binding.value) else None
        relax.analysis.post_order_visit(
            binding.value, lambda e, by=by: note(e, by) if isinstance(e, relax.Var) else None
        )
    relax.analysis.post_order_visit(result, lambda e: note(e, None) if isinstance(e, relax.Var) else None)
    return read


def _called(value: Any) -> str:
    """The name of the PrimFunc that a call of call_tir calls, "" of anything else."""
    plain = getattr(getattr(value, "op", None), "name", "") == "relax.call_tir" and len(value.args) == 2
    return value.args[0].name_hint if plain else ""


def _epilogue(body: PrimFunc, call: Any, source: Any, known: frozenset[int]) -> tuple[Epilogue, list[Any]] | None:
    """What an elementwise PrimFunc does with its argument `source`, and the arguments that it reads besides; None where it
    is not elementwise in it."""
    found = _one_block(body)
    if found is None:
        return None
    variables, store = found
    args, parameters = list(call.args[1].fields), list(body.params)
    if not store.buffer.same_as(parameters[-1]) or len(parameters) != len(args) + 1:
        return None
    shape = tuple(int(n) for n in store.buffer.shape)
    besides = [(a, p) for a, p in zip(args, parameters) if not a.same_as(source)]
    own = [p for a, p in zip(args, parameters) if a.same_as(source)]
    if not _identity(store.indices, variables) or not all(str(p.dtype) == "float32" for p in parameters):
        return None
    loads: list[Any] = []
    tvm_ffi.structural_map(store.value, [(TensorLoad, lambda n: loads.append(n) or n)], order="post")
    for load in loads:
        if any(load.source.same_as(p) for p in own):
            if not _identity(load.indices, variables):
                return None
        elif tuple(int(n) for n in load.source.shape) != shape or not _identity(load.indices, variables):
            axes = [_axis(i, variables) for i in load.indices]
            if any(a is None or (a >= 0 and a not in known) for a in axes):
                return None
    if _uses_indices(store.value, variables):
        return None

    def of(value: Any, element: Index, index: Sequence[Index | None], arrays: Sequence[Array]) -> Any:
        variable = tirx.Var("value", "float32")

        def replaced(load: Any) -> Any:
            if any(load.source.same_as(p) for p in own):
                return variable
            array = next(array for array, (_, p) in zip(arrays, besides) if load.source.same_as(p))
            if _identity(load.indices, variables) and tuple(int(n) for n in load.source.shape) == shape:
                return array[element]
            at: Any = 0
            for i, extent in zip(load.indices, load.source.shape):
                axis = _axis(i, variables)
                at = at * int(extent) + (index[axis] if axis is not None and axis >= 0 else 0)
            return array[at]

        made = tvm_ffi.structural_map(store.value, [(TensorLoad, replaced)], order="post")
        return tirx.Let(variable, value, made)

    shapes = tuple(tuple(int(n) for n in p.shape) for _, p in besides)
    return Epilogue(shapes, of), [a for a, _ in besides]


def _one_block(body: PrimFunc) -> tuple[list[Any], Any] | None:
    """(variables, store) of the one block that is left of the function's blocks, each inlined into the next."""
    sch = Schedule(body)
    try:
        blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
        for block in blocks[:-1]:
            sch.compute_inline(block)
        (last,) = sch.get_child_blocks(sch.get_sblock("root"))
    except Exception:  # a schedule's errors are of several kinds: it is no chain of elementwise blocks
        return None
    made = sch.get(last)
    spatial = all(int(v.iter_type) == 0 for v in made.iter_vars)
    if not spatial or not isinstance(made.body, tirx.BufferStore):
        return None
    return [v.var for v in made.iter_vars], made.body


def _identity(indices: Sequence[Any], variables: Sequence[Any]) -> bool:
    """Whether they are the block's variables, one by one, or 0 where the axis has but one element."""
    return len(indices) == len(variables) and all(
        isinstance(i, tirx.Var) and i.same_as(v) for i, v in zip(indices, variables)
    )


def _axis(index: Any, variables: Sequence[Any]) -> int | None:
    """The number of the variable that an index is, −1 where it is 0, None where it is another expression."""
    if isinstance(index, tirx.IntImm):
        return -1 if int(index) == 0 else None
    return next((i for i, v in enumerate(variables) if isinstance(index, tirx.Var) and index.same_as(v)), None)


def _uses_indices(value: Any, variables: Sequence[Any]) -> bool:
    """Whether a variable is read elsewhere than in the index of a load."""
    outside = tvm_ffi.structural_map(value, [(TensorLoad, lambda n: tirx.const(0.0, "float32"))], order="post")
    found: list[Any] = []
    tvm_ffi.structural_map(outside, [(tirx.Var, lambda n: found.append(n) or n)], order="post")
    return any(v.same_as(x) for v in found for x in variables)
