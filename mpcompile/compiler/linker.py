"""The C compiler that links lib.so: gcc, clang, or the ziglang wheel; for another architecture its cross compiler, or the
ziglang wheel. Nothing of TVM here, so `doctor` can ask too."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mpcompile.errors import ResourceError, TargetError, lack_of_memory
from mpcompile.targets import cpu
from mpcompile.temporary import no_room

CANDIDATES = ("gcc", "clang", "cc")
ADVICE = "install gcc or clang (apt-get install gcc), or: pip install ziglang"


FULL = (
    "No space left on device",
    "File too large",
    "File size limit exceeded",
    "Disk quota exceeded",
    "Read-only file",
)
OUT_OF_MEMORY = ("Cannot allocate memory", "out of memory", "memory exhausted", "std::bad_alloc")
"""What GNU's and LLVM's tools say, before they sum up that something failed."""

CROSS = {"aarch64-linux-gnu": "aarch64-linux-gnu", "armv7l-linux-gnueabihf": "arm-linux-gnueabihf"}
"""LLVM's triple → what Debian's cross gcc and zig call it."""


def find_linker(triple: str = "") -> list[str] | None:
    """The command of the first that is there; None where there is none.

    $CC, or where that is not set gcc, clang, cc, then the ziglang wheel; for a `triple` of another architecture its
    gcc, then the wheel. Raises TargetError where $CC is not there: whoever set it wants no other.
    """
    zig = [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None
    if triple and triple.split("-")[0] != cpu.arch():
        name = CROSS.get(triple, triple)
        found = shutil.which(f"{name}-gcc")
        return [found] if found else zig and [*zig, "-target", name]
    wanted = os.environ.get("CC", "").split()
    if wanted and not shutil.which(wanted[0]):
        raise TargetError(
            f"$CC names the C compiler {wanted[0]}, which is not there: name one that is, or unset CC, "
            f"and the first of {', '.join(CANDIDATES)} and the ziglang wheel is taken"
        )
    if wanted:
        return wanted
    for name in CANDIDATES:
        if found := shutil.which(name):
            return [found]
    return zig


def link_shared(output: str | Path, objects: Sequence[str | Path], triple: str = "") -> None:
    """Links object files into a shared library. Raises TargetError where there is no linker, or with its last
    words, ResourceError where there is no room."""
    command = find_linker(triple)
    if command is None and triple in CROSS:
        raise TargetError(
            f"linking for {triple} needs its C compiler and none was found: apt-get install "
            f"gcc-{CROSS[triple]}, or: pip install ziglang"
        )
    if command is None:
        raise TargetError(f"linking the compiled network needs a C compiler and none was found: {ADVICE}")
    command += ["-O2", "-shared", "-fPIC", "-o", str(output), *map(str, objects), "-lm"]
    run_tool(command, Path(output).parent, "did not link the compiled network")


def run_tool(command: Sequence[str | Path], folder: Path, failed: str) -> None:
    """Runs a compiler, a linker or the like, whose own temporary files go to `folder`.

    Raises ResourceError where it says that a disk or memory is full, TargetError with its last words where it fails.
    """
    words, env = [str(word) for word in command], os.environ | {"TMPDIR": str(folder), "LC_ALL": "C"}
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=600, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise lack_of_memory(error) or TargetError(f"{words[0]} {failed}: {error}") from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no message"]
        if done.returncode == -signal.SIGXFSZ:
            said = ["File size limit exceeded"]
        if full := _first(said, FULL):
            raise no_room(f"{words[0]} {failed}: {full}", folder)
        if full := _first(said, OUT_OF_MEMORY):
            raise ResourceError(f"out of memory: {words[0]} {failed}: {full}")
        raise TargetError(f"{words[0]} {failed}: {said[-1]}")


def _first(lines: Sequence[str], words: Sequence[str]) -> str | None:
    """The first line that has any of the words in it."""
    return next((line for line in lines if any(word in line for word in words)), None)
