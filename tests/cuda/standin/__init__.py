"""The stand-in for libcuda.so.1: how it is built, how a process gets it. Its cubins are tests.cuda.emulate's libraries."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
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


def run(code: str, *arguments: str | Path, standin: Path, **environment: str) -> subprocess.CompletedProcess:
    """Python code in a process of its own, which has this library for its driver; what it says is text."""
    return _process([sys.executable, "-c", code, *map(str, arguments)], standin, environment)


def command(*words: str | Path, standin: Path, seconds: float = 120, **environment: str) -> subprocess.CompletedProcess:
    """mpcompile with these words, likewise."""
    return _process([sys.executable, "-m", "mpcompile", *map(str, words)], standin, environment, seconds)


def _process(
    words: list[str], standin: Path, environment: dict[str, str], seconds: float = 120
) -> subprocess.CompletedProcess:
    found = {name: value for name, value in os.environ.items() if not name.startswith(("STANDIN", "CUDA"))}
    found |= {"LD_LIBRARY_PATH": str(standin.parent), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=found, timeout=seconds)


def _gxx(*words: str | Path) -> None:
    subprocess.run(["g++", *FLAGS, *map(str, words)], check=True)
