"""Loads a compiled library with TVM's runtime. The compiler half of TVM is not needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from mpcompile.errors import MissingDependency, ModelError, TargetError


def load_library(library: bytes) -> Callable[[str], Callable]:
    """lib.so's bytes → a lookup name → function. Raises TargetError where the system refuses it.

    The file lies in a private folder only while it is loaded: a mapped library needs no name, so nothing is left
    behind, whatever ends the process.
    """
    try:
        import tvm
    except ImportError as error:
        raise MissingDependency(
            f"running a bundle needs TVM's runtime ({error}): pip install apache-tvm==0.27.0.post1 "
            "apache-tvm-ffi==0.1.14.post1"
        ) from error
    with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
        path = Path(folder) / "lib.so"
        path.write_bytes(library)
        try:
            module = tvm.runtime.load_module(str(path))
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
