"""What one core can do at most: `roofline.c`, built for this CPU, measured in the same run as what is compared with it.

`python -m benchmarks.roofline [--asm]` prints the ceilings, and with --asm the loops as the compiler left them.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mpcompile.errors import MissingDependency
from mpcompile.latency.measure import Measurement, Timer, measure

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
        return run

    def rate(self, seconds: float) -> float:
        """Work per second, from the seconds of one block."""
        return self.work * STEPS / seconds


@cache
def library() -> Path:
    """roofline.c as a shared library for this CPU. Raises MissingDependency without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("clang") or shutil.which("cc")
    if not compiler:
        raise MissingDependency("the ceilings need a C compiler (gcc or clang) on PATH: apt install gcc")
    out = Path(tempfile.mkdtemp(prefix="mpcompile-roofline-")) / "roofline.so"
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", str(SOURCE), "-o", str(out)], check=True)
    return out


@cache
def loops() -> dict[str, Loop]:
    """popcount (bit-MAC), dot (int8 MAC) and clock (cycles)."""
    lib = ctypes.CDLL(str(library()))
    found = {}
    for name in ("popcount", "dot", "clock"):
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


def timers() -> dict[str, Timer]:
    """The loops as subjects for `measure`, named `roofline popcount`, `roofline dot`, `roofline clock`."""
    return {f"roofline {name}": loop.timer for name, loop in loops().items()}


@dataclass(frozen=True)
class Ceilings:
    """Of one core: bit-MAC/s, int8 MAC/s, Hz."""

    popcount: float
    dot: float
    clock: float

    @staticmethod
    def of(measurement: Measurement) -> "Ceilings":
        """From a measurement that had `timers()` among its subjects."""
        rates = {n: loop.rate(measurement[f"roofline {n}"].seconds) for n, loop in loops().items()}
        return Ceilings(**rates)

    def to_json(self) -> dict:
        return {"popcount_bit_mac_per_s": self.popcount, "dot_mac_per_s": self.dot, "clock_hz": self.clock,
                "popcount_instruction": loops()["popcount"].instruction,
                "dot_instruction": loops()["dot"].instruction}

    def __str__(self) -> str:
        found = loops()
        return "\n".join([
            f"clock     {self.clock / 1e9:7.3f} GHz",
            f"popcount  {self.popcount / 1e9:7.0f} G bit-MAC/s  {self.popcount / self.clock:6.1f} bit-MAC/cycle  "
            f"({found['popcount'].instruction})",
            f"dot       {self.dot / 1e9:7.0f} G MAC/s      {self.dot / self.clock:6.1f} MAC/cycle      "
            f"({found['dot'].instruction})",
            f"so one bit-serial MAC pays below w*a = {self.popcount / self.dot:.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--asm", action="store_true", help="print the compiled loops")
    if parser.parse_args().asm:
        print(subprocess.run(["objdump", "-d", "--no-show-raw-insn", str(library())], check=True,
                             capture_output=True, text=True).stdout)
    result = measure(timers(), rounds=21, min_time=0.005)
    print(Ceilings.of(result))
    print(result.note())


if __name__ == "__main__":
    main()
