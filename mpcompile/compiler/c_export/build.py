"""C and object files to one static library in which only the network's own functions can be seen from outside."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm_ffi

from mpcompile import cpu
from mpcompile.compiler.linker import find_linker, run_tool
from mpcompile.errors import TargetError
from mpcompile.targets import Target

HERE = Path(__file__).parent
TRIPLES = {"aarch64": "aarch64-linux-gnu", "arm": "arm-linux-gnueabihf", "armv7l": "arm-linux-gnueabihf"}
"""Debian's names of the cross tools: gcc-aarch64-linux-gnu, gcc-arm-linux-gnueabihf."""
WARNINGS = ("-std=c11", "-Wall", "-Wextra")


@dataclass(frozen=True)
class Tools:
    """Commands for one architecture."""

    cc: tuple[str, ...]
    objcopy: str
    ar: str

    @staticmethod
    def find(target: Target) -> "Tools":
        """Raises TargetError naming what is missing, and the package that has it."""
        if target.arch == cpu.arch():
            prefix, package = "", "gcc binutils"
            compiler = find_linker()
        else:
            triple = TRIPLES.get(target.arch, f"{target.arch}-linux-gnu")
            prefix, package = f"{triple}-", f"gcc-{triple}"
            compiler = [found] if (found := shutil.which(f"{prefix}gcc")) else None
        tools = {name: shutil.which(f"{prefix}{name}") for name in ("objcopy", "ar")}
        missing = [] if compiler else [f"{prefix}gcc"]
        missing += [f"{prefix}{name}" for name, path in tools.items() if path is None]
        if missing:
            raise TargetError(f"a C library for {target.name} needs {' and '.join(missing)}: apt-get install {package}")
        return Tools(tuple(compiler), tools["objcopy"], tools["ar"])

    def compile(self, source: Path, output: Path, flags: Sequence[str] = ()) -> Path:
        """An object file from C or assembler."""
        _do([*self.cc, "-c", "-O2", "-fPIC", *flags, "-o", output, source])
        return output

    def archive(self, objects: Sequence[Path], public: Sequence[str], library: Path) -> None:
        """One object with `public` symbols and no others, in a static library."""
        whole = library.with_suffix(".o")
        _do([*self.cc, "-r", "-nostdlib", "-o", whole, *objects])
        _do([self.objcopy, *(f"--keep-global-symbol={name}" for name in public), whole])
        library.unlink(missing_ok=True)
        _do([self.ar, "rcsD", library, whole])


def include_flags() -> list[str]:
    """Where runtime.h is, and the header of the interface that TVM's kernels are called by."""
    return [f"-I{HERE}", f"-I{tvm_ffi.libinfo.find_include_path()}", f"-I{tvm_ffi.libinfo.find_dlpack_include_path()}"]


def _do(command: Sequence[str | Path]) -> None:
    run_tool(command, "did not make the C library")
