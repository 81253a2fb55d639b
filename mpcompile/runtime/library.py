"""Loads a compiled library with TVM's runtime. The compiler half of TVM is not needed."""

from __future__ import annotations

import os
from collections.abc import Callable

from mpcompile.errors import ModelError, TargetError, lack_of_memory
from mpcompile.runtime.tvm_runtime import tvm_ffi
from mpcompile.temporary import temporary_folder


def load_library(library: bytes) -> Callable[[str], Callable]:
    """lib.so's bytes → a lookup name → function. Raises TargetError where the system refuses it, ResourceError
    where there is no room for it.

    The file lies in a private folder only while it is loaded: a mapped library needs no name. It is unloaded when nothing
    refers to its functions any more.
    """
    ffi = tvm_ffi()
    with temporary_folder() as folder:
        path = folder / "lib.so"
        path.write_bytes(library)
        try:
            module = ffi.load_module(str(path), keep_module_alive=False)
        except (RuntimeError, OSError, ValueError, MemoryError) as error:
            if os.statvfs(folder).f_flag & os.ST_NOEXEC:
                raise TargetError(
                    f"no code may run from {folder.parent} (noexec), where the bundle's library is loaded: "
                    "TMPDIR may name another place"
                ) from error
            if lack := lack_of_memory(error):
                raise lack from error
            raise TargetError(
                f"the system does not load the bundle's library from {folder}: {_last_line(error)}"
            ) from error

    def function(name: str) -> Callable:
        try:
            return module[name]
        except AttributeError as error:
            raise ModelError(f"the bundle's library has no function {name}, which its plan calls") from error

    return function


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
