"""The compiler's record of kind "cuda": one cubin with all kernels of a network, and what its functions launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcompile.kernels.tvm_names import PrimFunc
from mpcompile.runtime.cuda.code import CudaCode
from mpcompile.targets import Target

if TYPE_CHECKING:
    from mpcompile.compiler.cuda.source import CudaSource


class CudaBackend:
    """TVM's CUDA C, cubins by NVRTC; nothing to link."""

    exports_c = False
    runs_float = False

    def tvm_dict(self, target: Target, threads: int) -> dict[str, Any]:
        return {"kind": "cuda", "arch": target.arch}

    def build_objects(
        self, functions: Mapping[str, PrimFunc], target: Target, folder: Path, instruments: Sequence[object] = ()
    ) -> list[Path]:
        """One file, `kernels.cuda`: what a bundle holds. Raises MissingDependency where there is no NVRTC."""
        from mpcompile.compiler.cuda.nvrtc import cubin

        path, made = folder / "kernels.cuda", source_of(functions, target)
        path.write_bytes(CudaCode(made.functions, {target.arch: cubin(made.text, target.arch)}).to_bytes())
        return [path]

    def link_objects(self, objects: Sequence[Path], target: Target) -> bytes:
        (path,) = objects
        return path.read_bytes()


def source_of(functions: Mapping[str, PrimFunc], target: Target) -> CudaSource:
    """The functions as CUDA C for a board, and what they launch of it."""
    from mpcompile.compiler.cuda import source

    return source.source_of(functions, {"kind": "cuda", "arch": target.arch})
