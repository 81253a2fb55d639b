"""The names that TVM renames between releases, in one place: kernels, schedules and tuning run on 0.27 and 0.19 alike.

`te`, `tirx` (once tvm.tir), `Schedule` and `TensorIntrin` (once in tvm.tir), `T` (TVMScript), and the helpers below.
Nothing of Relax or Relay is here: the graph level differs and is written once for each.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Half of what TVM offers is made at run time, and the releases differ: no checker can know it.
    class PrimFunc(Any): ...

    class Schedule(Any): ...

    class Target(Any): ...

    class TensorIntrin(Any): ...

    class T(Any):
        class handle(Any): ...

    IS_TIRX: bool
    tvm: Any
    te: Any
    tirx: Any
    empty: Any
    from_source: Any
    register_global_func: Any
    sblock: Any
    sblock_alloc_buffer: Any
    tensor: Any
    TensorLoad: Any
    TensorRegion: Any
    SBlock: Any
    SBlockRealize: Any
else:
    import tvm
    from tvm import te
    from tvm.script import from_source
    from tvm.target import Target

    IS_TIRX = hasattr(tvm, "tirx")

    if IS_TIRX:
        from tvm import tirx
        from tvm.ir import TensorLoad, TensorRegion
        from tvm.s_tir import SBlock, SBlockRealize, Schedule, TensorIntrin
        from tvm.script import tirx as T

        sblock, sblock_alloc_buffer = T.sblock, T.sblock_alloc_buffer
        empty, register_global_func, tensor = tvm.runtime.empty, tvm.register_global_func, tvm.runtime.tensor
    else:
        from tvm import tir as tirx
        from tvm.script import tir as T
        from tvm.tir import Schedule, TensorIntrin

        TensorLoad, TensorRegion, SBlock = tirx.BufferLoad, tirx.BufferRegion, tirx.Block
        SBlockRealize = tirx.BlockRealize
        Schedule.get_sblock = Schedule.get_block
        sblock, sblock_alloc_buffer = T.block, T.alloc_buffer
        T.sblock, T.sblock_alloc_buffer = T.block, T.alloc_buffer
        register_global_func = tvm.register_func
        _with_handles = T.prim_func

        def _prim_func(func=None, s_tir=True, **options):
            return _with_handles(func, **options)

        _prim_func.dispatch_token = "tir"
        T.prim_func = _prim_func

        def tensor(array, device=None):
            return tvm.nd.array(array, device or tvm.cpu())

        def empty(shape, dtype, device=None):
            return tvm.nd.empty(shape, dtype, device or tvm.cpu())

    PrimFunc = tirx.PrimFunc


__all__ = [
    "IS_TIRX",
    "PrimFunc",
    "Schedule",
    "T",
    "Target",
    "TensorIntrin",
    "bindings_of",
    "buffer_of",
    "build",
    "empty",
    "from_source",
    "llvm_intrin",
    "map_calls",
    "map_products",
    "meta_schedule",
    "prepend_to_root",
    "prim_func",
    "register_global_func",
    "replace_buffer",
    "sblock",
    "sblock_alloc_buffer",
    "te",
    "tensor",
    "tirx",
]


def build(mod, target: Target, finish: Callable | None = None):
    """An IRModule of scheduled PrimFuncs to a runtime module with `export_library` and `[name]`.

    `finish`: PrimFunc → PrimFunc, applied to each before its buffers become calls for memory (0.27 only).
    """
    if IS_TIRX:
        return tvm.compile(mod, target=target, tir_pipeline=_pipeline(finish) if finish else "default")
    # 0.19 with LLVM 22 cannot build a let of a vector, which its common-subexpression pass makes
    with tvm.transform.PassContext(opt_level=3, config={"tir.disable_cse_tir": True}):
        return tvm.build(mod, target=target)


def _pipeline(finish: Callable) -> str:
    """The name of TVM's own pipeline with `finish` in it."""
    from tvm.tirx.compilation_pipeline import get_tir_pipeline, register_tir_pipeline

    @tirx.transform.prim_func_pass(opt_level=0)
    def finished(function, mod, context):
        return finish(function)

    def pipeline():
        lower, finalize_host, finalize_device = get_tir_pipeline("default")  # pyright: ignore[reportGeneralTypeIssues]
        return lower, lambda: tvm.ir.transform.Sequential([finished, finalize_host()]), finalize_device

    name = f"{finish.__module__}.{finish.__qualname__}"
    register_tir_pipeline(name, pipeline)
    return name


def meta_schedule():
    """(the module meta_schedule, the decorator of classes that derive from its Py… classes). Loaded when asked for."""
    if IS_TIRX:
        _load_intrinsics()
        from tvm.ir.utils import derived_object
        from tvm.s_tir import meta_schedule as found

        return found, derived_object
    from tvm import meta_schedule as found  # pyright: ignore[reportAttributeAccessIssue]

    return found, found.derived_object


def _load_intrinsics() -> None:
    """TVM's intrinsics for all its targets, which a TuneContext imports. Each of them asks where it was called from, and
    inspect then looks through all modules, twice a frame: half a minute where torch is loaded. The files suffice."""
    if "tvm.s_tir.tensor_intrin" not in sys.modules:
        slow, inspect.getmodule = inspect.getmodule, lambda *_, **__: None
        try:
            import tvm.s_tir.tensor_intrin  # noqa: F401
        finally:
            inspect.getmodule = slow


def llvm_intrin(dtype: str, name: str, signature: int, *args):
    """A call of a pure LLVM intrinsic.

    `signature` counts the arguments that select an overload (0.27 finds out itself).
    """
    if IS_TIRX:
        return tirx.call_llvm_pure_intrin(dtype, name, *args)
    return tirx.call_llvm_pure_intrin(dtype, name, tirx.const(signature, "uint32"), *args)


def prim_func(args: list, name: str):
    """A PrimFunc from te tensors, inputs then outputs, with global symbol `name`; buffers do not alias. An expression that
    binds a variable may be read in several places: each binds one of its own."""
    made = _bound_once(te.create_prim_func(args))
    return made.with_attr({"global_symbol": name, "tirx.noalias" if IS_TIRX else "tir.noalias": True})


def _bound_once(func):
    bound: list = []
    _map_nodes(func.body, [(tirx.Let, lambda n: bound.append(n.var) or n)])
    passes = tvm.s_tir.transform if IS_TIRX else tirx.transform
    return passes.ConvertSSA()(tvm.IRModule({"main": func}))["main"] if bound else func


def map_calls(func, made: dict[str, Callable]):
    """`func` with each call of an operator of one float32 number, by its name, replaced by what `made` has for it."""

    def call(n):
        replace = made.get(getattr(n.op, "name", ""))
        return replace(n.args[0]) if replace and str(n.ty if IS_TIRX else n.dtype) == "float32" else n

    return _with(func, _map_nodes(func.body, [(tvm.ir.Call if IS_TIRX else tirx.Call, call)]))


def map_products(func, variable, factor: int, change: Callable):
    """`func` with change(product) for each product of a variable and a constant."""

    def product(n):
        found = n.a.same_as(variable) and isinstance(n.b, tirx.IntImm) and int(n.b) == factor
        return change(n) if found else n

    return _with(func, _map_nodes(func.body, [(tirx.Mul, product)]))


def bindings_of(func, block: str) -> list:
    """What the axes of the block of that name are bound to."""
    found: list = []
    _map_nodes(func.body, [(SBlockRealize, lambda n: found.append(n) or n)])
    (realize,) = (n for n in found if n.block.name_hint == block)
    return list(realize.iter_values)


def _map_nodes(node, handlers: list):
    """Rebuild a statement bottom-up: each (node class, function) gives what replaces a node of that class."""
    if IS_TIRX:
        import tvm_ffi

        return tvm_ffi.structural_map(node, handlers, order="post")
    classes = dict(handlers)
    names = [f"tir.{c.__name__}" for c in classes]
    return tirx.stmt_functor.ir_transform(
        node, None, lambda n: classes[type(n)](n) if type(n) in classes else None, names
    )


def buffer_of(func, i: int):
    """The buffer of parameter i."""
    return func.params[i] if IS_TIRX else func.buffer_map[func.params[i]]


def _with(func, body, i: int | None = None, buffer=None):
    """`func` with another body, and `buffer` as that of parameter i."""
    if IS_TIRX:
        params = [buffer if j == i else p for j, p in enumerate(func.params)]
        return tirx.PrimFunc(params, body, func.ret_type, func.attrs)
    buffers = {p: buffer if j == i else func.buffer_map[p] for j, p in enumerate(func.params)}
    return tirx.PrimFunc(func.params, body, func.ret_type, buffers, func.attrs)


def replace_buffer(func, parameter: int, new, place):
    """`func` with the buffer of a parameter replaced by `new`; element `index` is at `place(index)` there."""
    old = buffer_of(func, parameter)
    source = "source" if IS_TIRX else "buffer"

    def store(n):
        return tirx.BufferStore(new, n.value, place(list(n.indices))) if n.buffer.same_as(old) else n

    def load(n):
        return tirx.BufferLoad(new, place(list(n.indices))) if getattr(n, source).same_as(old) else n

    def region(r):
        if not getattr(r, source).same_as(old):
            return r
        low = place([x.min for x in r.region])
        high = place([x.min + x.extent - 1 for x in r.region])
        return tirx.BufferRegion(new, [tvm.ir.Range(a, b + 1) for a, b in zip(low, high)])

    def block(n):
        return SBlock(
            n.iter_vars,
            [region(r) for r in n.reads],
            [region(r) for r in n.writes],
            n.name_hint,
            n.body,
            n.init,
            n.alloc_buffers,
            n.match_buffers,
            n.annotations,
        )

    body = _map_nodes(func.body, [(tirx.BufferStore, store), (TensorLoad, load), (SBlock, block)])
    return _with(func, body, parameter, new)


def prepend_to_root(func, statements: list):
    """`func` with statements put first in its root block."""
    realize = func.body
    root = realize.block
    block = SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        tirx.SeqStmt([*statements, root.body]),
        root.init,
        root.alloc_buffers,
        root.match_buffers,
        root.annotations,
    )
    return _with(func, type(realize)(realize.iter_values, realize.predicate, block))
