"""PrimFuncs to one shared library, which runs with TVM's runtime alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tvm

from mpcompile.compiler.linker import link_shared
from mpcompile.tvm_names import Target, build, tirx


def build_library(functions: Mapping[str, tirx.PrimFunc], target: dict) -> bytes:
    """lib.so, in which each function has its name. `target` is TVM's dict. Raises TargetError where linking fails."""
    named = {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    built = build(tvm.IRModule(named), Target(target))
    with tempfile.TemporaryDirectory(prefix="mpcompile-") as folder:
        path = Path(folder) / "lib.so"
        built.export_library(str(path), fcompile=_link, workspace_dir=folder)
        return path.read_bytes()


def _link(output: str, objects: list[str], **_options) -> None:
    link_shared(output, objects)
