"""Loads a compiled library with TVM's runtime. The compiler half of TVM is not needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mpcompile.errors import ModelError, TargetError
from mpcompile.runtime.tvm_runtime import tvm_ffi


def load_library(library: bytes) -> Callable[[str], Callable]:
    """lib.so's bytes → a lookup name → function. Raises TargetError where the system refuses it.

    The file lies in a private folder only while it is loaded: a mapped library needs no name, so nothing is left
    behind, whatever ends the process. It is unloaded when nothing refers to its functions any more.
    """
    ffi = tvm_ffi()
    with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
        path = Path(folder) / "lib.so"
        path.write_bytes(library)
        try:
            module = ffi.load_module(str(path), keep_module_alive=False)
        except (RuntimeError, OSError, ValueError) as error:
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
