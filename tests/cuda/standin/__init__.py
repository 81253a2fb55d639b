"""The stand-in for libcuda.so.1: how it is built, what it takes for a cubin, how a process gets it."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)')
FLAGS = ("-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden")


def build(folder: Path, *sources: Path, name: str = "libcuda.so.1") -> Path:
    """libcuda.so.1 in the folder, of all its files, or a library of these."""
    library = folder / name
    _gxx("-Wall", "-Wextra", "-o", library, *(sources or sorted(HERE.glob("*.cpp"))), "-ldl")
    return library


def none(folder: Path) -> Path:
    """A driver that cannot be loaded: what a machine without one has, also where it has one."""
    library = folder / "libcuda.so.1"
    library.write_bytes(b"")
    return library


@cache
def emulated(source: str) -> bytes:
    """What stands for the cubin of CUDA C whose kernels take addresses alone."""
    calls = []
    for name, parameters in KERNEL.findall(source):
        types = [re.sub(r"\s*(__restrict__)?\s*\w+$", "", p.strip()) for p in parameters.split(",")]
        values = ", ".join(f"*({kind}*)p[{i}]" for i, kind in enumerate(types))
        calls.append(
            f'extern "C" __attribute__((visibility("default"))) void emu_call_{name}(void** p) {{ {name}({values}); }}\n'
            f'extern "C" __attribute__((visibility("default"))) const int emu_params_{name} = {len(types)};\n'
        )
    with TemporaryDirectory() as folder:
        text, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        text.write_text(f'#include "{HERE}/threads.h"\n{source}\n{"".join(calls)}')
        _gxx("-w", "-ffp-contract=off", "-fno-strict-aliasing", "-o", library, text)
        return library.read_bytes()


def run(code: str, *arguments: str | Path, standin: Path, **environment: str) -> subprocess.CompletedProcess:
    """Python code in a process of its own, which has this library for its driver; what it says is text."""
    return _process([sys.executable, "-c", code, *map(str, arguments)], standin, environment)


def command(*words: str | Path, standin: Path, **environment: str) -> subprocess.CompletedProcess:
    """mpcompile with these words, likewise."""
    return _process([sys.executable, "-m", "mpcompile", *map(str, words)], standin, environment)


def _process(words: list[str], standin: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    found = {name: value for name, value in os.environ.items() if not name.startswith(("STANDIN", "CUDA"))}
    found |= {"LD_LIBRARY_PATH": str(standin.parent), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=found, timeout=120)


def _gxx(*words: str | Path) -> None:
    subprocess.run(["g++", *FLAGS, *map(str, words)], check=True)
