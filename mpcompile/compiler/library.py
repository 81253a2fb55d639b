"""PrimFuncs to machine code of a CPU: object files, or one shared library, which runs with TVM's runtime alone."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import tvm

from mpcompile.compiler.linker import link_shared
from mpcompile.compiler.scratch import use_stack
from mpcompile.errors import ResourceError
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
    passes, from several threads. Raises ResourceError where files may not be as large as they are."""
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
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    limited = most != resource.RLIM_INFINITY
    with (
        _ALONE if limited else nullcontext(),
        tvm.transform.PassContext(opt_level=3, instruments=list(instruments)),
        open(os.memfd_create("object"), "rb", buffering=0) as memory,
    ):
        module, name = compiled(functions, target).mod, f"/proc/self/fd/{memory.fileno()}"
        write = lambda: module.write_to_file(name, "o")  # pyright: ignore[reportAttributeAccessIssue]
        if not limited:
            write()
        elif not _by_a_child(write):
            raise ResourceError(f"LLVM cannot write {path.name}: files may have at most {most} bytes here (ulimit -f)")
        path.write_bytes(memory.readall())


# Where LLVM cannot write, it ends the process. So it writes into memory, which does not fill up as a disk does. A limit of
# the size of files holds there as well; then a child process writes, and no other thread may be in LLVM as it forks.
_ALONE = threading.Lock()


def _by_a_child(work: Callable[[], None]) -> bool:
    """Whether a copy of this process could do the work, whose words are not heard."""
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
