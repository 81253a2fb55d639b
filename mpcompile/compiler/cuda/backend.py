"""The compiler's record of kind "cuda": one cubin with all kernels of a network, and what its functions launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpcompile.kernels.tvm_names import PrimFunc
from mpcompile.runtime.cuda.code import CudaCode
from mpcompile.targets import Target


class CudaBackend:
    """TVM's CUDA C, cubins by NVRTC; nothing to link."""

    exports_c = False

    def tvm_dict(self, target: Target, threads: int) -> dict[str, Any]:
        return {"kind": "cuda", "arch": target.arch}

    def build_objects(
        self, functions: Mapping[str, PrimFunc], target: Target, folder: Path, instruments: Sequence[object] = ()
    ) -> list[Path]:
        """One file, `kernels.cuda`: what a bundle holds. Raises MissingDependency where there is no NVRTC."""
        path = folder / "kernels.cuda"
        path.write_bytes(code_of(functions, target).to_bytes())
        return [path]

    def link_objects(self, objects: Sequence[Path], target: Target) -> bytes:
        (path,) = objects
        return path.read_bytes()


def code_of(functions: Mapping[str, PrimFunc], target: Target, with_source: bool = False) -> CudaCode:
    """The code for the board's architecture; `with_source`: its CUDA C too.

    Raises TargetError where NVRTC refuses it, MissingDependency where there is no NVRTC.
    """
    from mpcompile.compiler.cuda.nvrtc import cubin
    from mpcompile.compiler.cuda.source import source_of

    made = source_of(functions, {"kind": "cuda", "arch": target.arch})
    sources = {"cuda": made.text} if with_source else {}
    return CudaCode(made.functions, {target.arch: cubin(made.text, target.arch)}, sources)
