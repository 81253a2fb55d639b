"""The instructions that a kernel executes, one after another: the kernel runs under QEMU, which logs its basic blocks.

So llvm-mca sees a whole layer as a core would, with its loops, its epilogue and its packing: all data in the first
cache, every branch foreseen. Needs what the ARM tests need (.ci/setup-arm).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import tvm
import tvm_ffi

from benchmarks import arm_loops
from mpcompile.compiler.backend import tvm_dict
from mpcompile.errors import MissingDependency
from mpcompile.kernels.tvm_names import Target, build

TOOLS = ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-nm", "aarch64-linux-gnu-objdump", "qemu-aarch64-static")
DRIVER = Path(__file__).parents[1] / "tests" / "arm" / "driver.c"
_CODES = {"i": 0, "u": 1, "f": 2}


def executed(func, target, arrays: list[np.ndarray]) -> list[str]:
    """Of one call of the PrimFunc with `arrays`, in order; branches left out. Raises MissingDependency."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise MissingDependency(f"tracing a kernel needs {', '.join(missing)}: bash .ci/setup-arm installs them")
    library = build(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), Target(tvm_dict(target, 1)))
    with tempfile.TemporaryDirectory(prefix="mpcompile-trace-") as name:
        folder, own = Path(name), set()
        headers = [tvm_ffi.libinfo.find_include_path(), tvm_ffi.libinfo.find_dlpack_include_path()]

        def link(_output, objects, **_options):
            for path in objects:
                own.update(
                    line.split()[-1]
                    for line in _run("aarch64-linux-gnu-nm", "--defined-only", path).splitlines()
                    if line.split()[-2] in "tT"
                )
            _run(
                TOOLS[0],
                "-std=gnu11",
                "-O1",
                "-static",
                "-o",
                folder / "kernel",
                DRIVER,
                *objects,
                *(f"-I{path}" for path in headers),
                "-lm",
            )

        library.export_library(str(folder / "kernel.so"), fcompile=link, workspace_dir=name)
        (folder / "in").write_bytes(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
        layouts = [f"{_CODES[a.dtype.kind]}:{a.dtype.itemsize * 8}:" + "x".join(map(str, a.shape)) for a in arrays]
        # the object's code lies together; what threads share has no symbol
        symbols = sorted(
            (int(line.split()[0], 16), line.split()[-1])
            for line in _run("aarch64-linux-gnu-nm", "-n", "--defined-only", folder / "kernel").splitlines()
            if line.split()[-2] in "tTwW"
        )
        first = min(at for at, symbol in symbols if symbol in own)
        last = max(at for at, symbol in symbols if symbol in own)
        end = min(at for at, _ in symbols if at > last)
        # blocks are given as they are translated, before they run for the first time
        _run(
            "qemu-aarch64-static",
            "-d",
            "in_asm,exec,nochain",
            "-D",
            folder / "log",
            "-dfilter",
            f"{first:#x}..{end - 1:#x}",
            folder / "kernel",
            folder / "in",
            folder / "out",
            *layouts,
        )
        text = _listing(folder / "kernel", first, end)
        return [text[at] for at in _addresses(folder / "log") if at in text and not arm_loops.branches(text[at])]


def _addresses(log: Path) -> list[int]:
    blocks: dict[int, list[int]] = {}
    found, block = [], []
    for line in log.open():
        if line.startswith("IN:"):
            block = []
        elif match := re.match(r"0x([0-9a-f]+):", line):
            block.append(int(match[1], 16))
            blocks[block[0]] = block
        elif match := re.match(r"Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", line):
            found += blocks.get(int(match[1], 16), [])
    return found


def _listing(program: Path, first: int, end: int) -> dict[int, str]:
    """Instructions by address, as an assembler takes them."""
    found = {}
    for line in _run(
        "aarch64-linux-gnu-objdump",
        "-d",
        "--no-show-raw-insn",
        f"--start-address={first}",
        f"--stop-address={end}",
        program,
    ).splitlines():
        if match := re.match(r"\s*([0-9a-f]+):\s+(\S.*)", line):
            text = re.sub(r"\s*(<.*>|//.*)$", "", match[2])
            found[int(match[1], 16)] = re.sub(r"^adrp\s+(\w+),.*", r"adrp \1, #0", text)
    return found


def _run(*command) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-500:]}")
    return done.stdout
