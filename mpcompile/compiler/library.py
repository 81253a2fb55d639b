"""PrimFuncs to machine code of a CPU: object files, or one shared library, which runs with TVM's runtime alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tvm

from mpcompile.compiler.linker import link_shared
from mpcompile.compiler.scratch import use_stack
from mpcompile.kernels.tvm_names import PrimFunc, Target, build
from mpcompile.targets import cpu

TOGETHER = 6
"""So many functions make an object file. Object files are compiled side by side; how many there are does not depend on
the machine, so that the same model gives the same bytes everywhere."""


def link_objects(objects: Sequence[Path], triple: str) -> bytes:
    """lib.so of object files, beside which it is made. Raises TargetError where linking fails."""
    library = objects[0].with_name("lib.so")
    link_shared(library, objects, triple)
    return library.read_bytes()


def build_objects(
    functions: Mapping[str, PrimFunc], target: dict, folder: Path, instruments: Sequence[object] = ()
) -> list[Path]:
    """Object files in `folder`, in which each function has its name. `target` is TVM's dict. `instruments` see TVM's
    passes, from several threads."""
    named = [(name, function.with_attr("global_symbol", name)) for name, function in functions.items()]
    parts = [dict(named[at : at + TOGETHER]) for at in range(0, len(named), TOGETHER)] or [{}]
    objects = [folder / f"kernels{i}.o" for i in range(len(parts))]
    with ThreadPoolExecutor(len(cpu.allowed())) as pool:
        list(pool.map(lambda part, path: _compile(part, target, path, instruments), parts, objects))
    return objects


def compiled(functions: Mapping[str, PrimFunc], target: dict):
    """A runtime module with `[name]`, and `mod` of TVM, which writes object files or assembly."""
    return build(tvm.IRModule(functions), Target(target), use_stack)


def _compile(functions: Mapping[str, PrimFunc], target: dict, path: Path, instruments) -> None:
    """One object file. LLVM runs without Python's lock, so threads are enough."""
    with tvm.transform.PassContext(opt_level=3, instruments=list(instruments)):
        module = compiled(functions, target).mod
        module.write_to_file(str(path), "o")  # pyright: ignore[reportAttributeAccessIssue]
