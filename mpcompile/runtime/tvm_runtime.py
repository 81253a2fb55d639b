"""TVM's runtime, without TVM: tvm_ffi and libtvm_runtime.so are all that running a bundle takes.

`import tvm` loads its compiler, a quarter of a gigabyte, and `import tvm_ffi` loads torch where that is installed: seconds
before the first result. Neither is of any use to a bundle, so both are left out, unless somebody has loaded them already.
A program that wants `tvm_ffi.use_torch_stream` imports torch first.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from mpcompile.errors import MissingDependency, lack_of_memory

ADVICE = "pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"


@cache
def tvm_ffi() -> ModuleType:
    """The module tvm_ffi, with TVM's runtime loaded. Raises MissingDependency where either is not installed,
    ResourceError where there is too little memory."""
    try:
        with _hidden("torch"):
            import tvm_ffi as found
        if "tvm" not in sys.modules:
            _load_runtime(found)
    except (ImportError, OSError, RuntimeError, MemoryError) as error:
        if lack := lack_of_memory(error):
            raise lack from error
        reason = " ".join(str(error).split())
        raise MissingDependency(f"running a bundle needs TVM's runtime ({reason}): {ADVICE}") from error
    return found


def _load_runtime(ffi: ModuleType) -> None:
    """Its symbols are global, as `import tvm` makes them: a bundle's library and a later `import tvm` find them."""
    spec = importlib.util.find_spec("tvm")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("No module named 'tvm'")
    folders = [Path(place) / "lib" for place in spec.submodule_search_locations]
    ffi.libinfo.load_lib_ctypes("apache-tvm", "tvm_runtime", "RTLD_GLOBAL", extra_lib_paths=folders)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """As if the package were not installed, for imports of this thread; one that is loaded already stays."""
    finder = _Refuse(name)
    if name not in sys.modules:
        sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


class _Refuse:
    """A finder of modules that says of one package that there is none."""

    def __init__(self, name: str):
        self.name, self.thread = name, threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.name and threading.get_ident() == self.thread:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
