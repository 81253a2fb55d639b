"""What one core can do at most: `roofline.c`, built for a target, measured in the same run as what is compared with it.

`python -m benchmarks.roofline [--target T] [--asm]` prints the ceilings, and with --asm the loops as the compiler left
them. A target's ceiling is that of the best loop known for its instructions, not for this CPU's.
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mpcompile.cli.console import complain
from mpcompile.errors import MissingDependency, MpError, TargetError
from mpcompile.latency.measure import Measurement, measure
from mpcompile.latency.timer import Timer
from mpcompile.targets import load_target

SOURCE = Path(__file__).with_name("roofline.c")
STEPS = 2048


@dataclass(frozen=True)
class Loop:
    """One loop of roofline.c. `work` is done per step: bit-MAC, MAC, or cycles."""

    name: str
    instruction: str
    work: int
    call: object

    @property
    def timer(self) -> Timer:
        """Runs n blocks of STEPS steps."""

        def run(n: int) -> float:
            start = time.perf_counter()
            self.call(STEPS * n)
            return time.perf_counter() - start

        return Timer(run)

    def rate(self, seconds: float) -> float:
        """Work per second, from the seconds of one block."""
        return self.work * STEPS / seconds


@cache
def library(target: str = "native") -> Path:
    """roofline.c as a shared library for a target.

    Raises MissingDependency without a C compiler, TargetError where the compiler does not know the target's CPU.
    """
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if not compiler:
        raise MissingDependency("the ceilings need a C compiler (gcc or clang) on PATH: apt install gcc")
    folder = tempfile.mkdtemp(prefix="mpcompile-roofline-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    out = Path(folder) / "roofline.so"
    built = subprocess.run(
        [compiler, "-O3", *flags(target), "-shared", "-fPIC", str(SOURCE), "-o", str(out)],
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise TargetError(
            f"{Path(compiler).name} {' '.join(flags(target))} fails, so target {target} has no ceiling "
            f"here: native, or an x86-64 level, would be accepted ({built.stderr.splitlines()[0]})"
        )
    return out


def flags(target: str) -> list[str]:
    """The compiler's flags for a target."""
    if target == "native":
        return ["-march=native"]
    board = load_target(target)
    return [f"-march={board.mcpu}", *(f"-m{a[1:]}" for a in board.mattr if a.startswith("+"))]


@cache
def loops(target: str = "native") -> dict[str, Loop]:
    """popcount (bit-MAC), dot (MAC of any 8 bits), few (MAC of so few bits that 16-bit sums hold them), clock
    (cycles); and lookup (MAC of one weight bit) where the target has such kernels."""
    lib = ctypes.CDLL(str(library(target)))
    found = {}
    for name in ("popcount", "dot", "few", "clock", *(("lookup",) if hasattr(lib, "lookup_loop") else ())):
        work = getattr(lib, f"{name}_work")
        work.restype = ctypes.c_int64
        call = getattr(lib, f"{name}_loop")
        call.argtypes, call.restype = [ctypes.c_int64], ctypes.c_int64
        label = "clock"
        if name != "clock":
            text = getattr(lib, f"{name}_name")
            text.restype = ctypes.c_char_p
            label = text().decode()
        found[name] = Loop(name, label, work(), call)
    return found


def timers(target: str = "native") -> dict[str, Timer]:
    """The loops as subjects for `measure`, named `roofline popcount`, `roofline dot`, `roofline clock`."""
    return {f"roofline {name}": loop.timer for name, loop in loops(target).items()}


@dataclass(frozen=True)
class Ceilings:
    """Of one core: bit-MAC/s, MAC/s of any 8 bits and of few bits, Hz, MAC/s of one weight bit by look-up (0: none)."""

    popcount: float
    dot: float
    few: float
    clock: float
    lookup: float = 0.0
    target: str = "native"

    @staticmethod
    def of(measurement: Measurement, target: str = "native") -> Ceilings:
        """From a measurement that had `timers(target)` among its subjects."""
        rates = {n: loop.rate(measurement[f"roofline {n}"].seconds) for n, loop in loops(target).items()}
        return Ceilings(**rates, target=target)

    def to_json(self) -> dict:
        return {
            "popcount_bit_mac_per_s": self.popcount,
            "dot_mac_per_s": self.dot,
            "lookup_mac_per_s": self.lookup,
            "few_mac_per_s": self.few,
            "clock_hz": self.clock,
            "popcount_instruction": loops(self.target)["popcount"].instruction,
            "dot_instruction": loops(self.target)["dot"].instruction,
            "few_instruction": loops(self.target)["few"].instruction,
        }

    def __str__(self) -> str:
        found = loops(self.target)
        return "\n".join(
            [
                f"clock     {self.clock / 1e9:7.3f} GHz",
                f"popcount  {self.popcount / 1e9:7.0f} G bit-MAC/s  {self.popcount / self.clock:6.1f} bit-MAC/cycle  "
                f"({found['popcount'].instruction})",
                f"dot       {self.dot / 1e9:7.0f} G MAC/s      {self.dot / self.clock:6.1f} MAC/cycle      "
                f"({found['dot'].instruction})",
                f"few bits  {self.few / 1e9:7.0f} G MAC/s      {self.few / self.clock:6.1f} MAC/cycle      "
                f"({found['few'].instruction})",
                *(
                    [
                        f"lookup    {self.lookup / 1e9:7.0f} G MAC/s      {self.lookup / self.clock:6.1f} MAC/cycle      "
                        f"({found['lookup'].instruction}, one weight bit)"
                    ]
                    if self.lookup
                    else []
                ),
                f"so one bit-serial MAC pays below w*a = {self.popcount / self.few:.2f}",
            ]
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="native", help="whose instructions (default: %(default)s)")
    parser.add_argument("--asm", action="store_true", help="print the compiled loops")
    args = parser.parse_args()
    try:
        if args.asm:
            print(
                subprocess.run(
                    ["objdump", "-d", "--no-show-raw-insn", str(library(args.target))],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
        result = measure(timers(args.target), rounds=21, min_time=0.005)
    except MpError as error:
        complain(str(error))
        return error.exit_code
    print(Ceilings.of(result, args.target))
    print(result.note())
    return 0


if __name__ == "__main__":
    sys.exit(main())
