"""C and object files to one static library in which only the network's own functions can be seen from outside."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm_ffi

from mpcompile.compiler.c_export.localize import localize
from mpcompile.compiler.linker import CROSS, find_linker, run_tool
from mpcompile.errors import TargetError
from mpcompile.targets import cpu

HERE = Path(__file__).parent
WARNINGS = ("-std=c11", "-Wall", "-Wextra")


@dataclass(frozen=True)
class Tools:
    """Commands for one architecture: a gcc or clang with its ar, or the ziglang wheel, which has both."""

    cc: tuple[str, ...]
    ar: tuple[str, ...]

    @staticmethod
    def find(arch: str, purpose: str, *, static: bool = False) -> Tools:
        """For programs that are `static`, or may not be. Raises TargetError naming what is missing, and the package
        that has it."""
        triple = next((t for t in CROSS if t.startswith(arch)), arch) if arch != cpu.arch() else ""
        compiler = find_linker(triple)
        if compiler and compiler[1:3] == ["-m", "ziglang"]:
            if static and triple:
                compiler[-1] = compiler[-1].replace("-gnu", "-musl")  # zig brings no glibc to link statically
            return Tools(tuple(compiler), (*compiler[:3], "ar"))
        prefix = f"{CROSS.get(triple, triple)}-" if triple else ""
        ar = shutil.which(f"{prefix}ar")
        if compiler and ar:
            return Tools(tuple(compiler), (ar,))
        missing = [f"{prefix}{name}" for name, found in (("gcc", compiler), ("ar", ar)) if not found]
        package = f"gcc-{prefix}".rstrip("-") if triple else "gcc binutils"
        raise TargetError(
            f"{purpose} needs {' and '.join(missing)}: apt-get install {package}, or: pip install ziglang"
        )

    def compile(self, source: Path, output: Path, flags: Sequence[str] = ()) -> Path:
        """An object file from C or assembler."""
        _do([*self.cc, "-c", "-O2", "-fPIC", *flags, "-o", output, source], output.parent)
        return output

    def archive(self, objects: Sequence[Path], public: Sequence[str], library: Path) -> None:
        """One object with `public` symbols and no others, in a static library."""
        whole = library.with_suffix(".o")
        _do([*self.cc, "-r", "-nostdlib", "-o", whole, *objects], whole.parent)
        localize(whole, public)
        library.unlink(missing_ok=True)
        _do([*self.ar, "rcsD", library, whole], library.parent)


def include_flags() -> list[str]:
    """Where runtime.h is, and the header of the interface that TVM's kernels are called by."""
    return [f"-I{HERE}", f"-I{tvm_ffi.libinfo.find_include_path()}", f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}"]


def _do(command: Sequence[str | Path], folder: Path) -> None:
    run_tool(command, folder, "did not make the C library")
