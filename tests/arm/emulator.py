"""Runs a kernel of an ARM board under QEMU's user emulation, on the board's own core: QEMU's default CPU has every
feature and would hide an instruction that the board lacks."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import tvm_ffi

from mpcompile.compiler.backend import tvm_dict
from mpcompile.compiler.library import compiled
from mpcompile.targets import Target

TOOLS = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64-static"),
    "armv7l": ("arm-linux-gnueabihf-gcc", "qemu-arm-static"),
}
"""Compiler and emulator of an architecture: Debian's gcc-aarch64-linux-gnu, gcc-arm-linux-gnueabihf, qemu-user-static."""

_CODES = {"i": 0, "u": 1, "f": 2}


def emulated_core(target: Target) -> str:
    """QEMU's name of the board's core.

    QEMU has no 32-bit A53 or A72: the A15 has the same instructions there (NEON and VFPv4, no dot product).
    """
    if target.arch == "armv7l":
        return "cortex-a15"
    if target.mcpu == "generic":  # the least CPU that has what the board promises
        return "cortex-a76" if "asimddp" in target.features else "cortex-a53"
    return target.mcpu


def missing_tools() -> list[str]:
    return sorted({tool for pair in TOOLS.values() for tool in pair if not shutil.which(tool)})


@cache
def _driver(arch: str) -> Path:
    """The driver's object file, compiled once a process."""
    folder = temporary()
    headers = [tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()]
    _run(
        [
            TOOLS[arch][0],
            "-std=gnu11",
            "-O1",
            "-Wall",
            "-Werror",
            "-c",
            "-o",
            folder / "driver.o",
            Path(__file__).parent / "driver.c",
            *(f"-I{h}" for h in headers),
        ]
    )
    return folder / "driver.o"


_folders: list[Path] = []


def temporary() -> Path:
    """A folder that is removed when the tests end."""
    _folders.append(Path(tempfile.mkdtemp(prefix="mpcompile-arm-")))
    return _folders[-1]


def remove_files() -> None:
    """What the driver left on the disk."""
    _driver.cache_clear()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def run(func, target: Target, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Calls the PrimFunc with `arrays`; all of them as they are afterwards."""
    compiler, emulator = TOOLS[target.arch]
    library = compiled({"main": func.with_attr("global_symbol", "main")}, tvm_dict(target, 2))
    with tempfile.TemporaryDirectory(prefix="mpcompile-arm-") as name:
        folder = Path(name)

        def link(_output, objects, **_options):
            _run([compiler, "-static", "-o", folder / "kernel", _driver(target.arch), *objects, "-lm"])

        library.export_library(str(folder / "kernel.so"), fcompile=link, workspace_dir=name)
        (folder / "in").write_bytes(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
        layouts = [f"{_CODES[a.dtype.kind]}:{a.dtype.itemsize * 8}:" + "x".join(map(str, a.shape)) for a in arrays]
        _run([emulator, "-cpu", emulated_core(target), folder / "kernel", folder / "in", folder / "out", *layouts])
        data, results = (folder / "out").read_bytes(), []
    for a in arrays:
        results.append(np.frombuffer(data[: a.nbytes], a.dtype).reshape(a.shape))
        data = data[a.nbytes :]
    return results


def _run(command: list) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
