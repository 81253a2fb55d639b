"""Static speeds of the ARM kernels: `python -m benchmarks.arm_static [--json FILE]`. No board is needed, and none is
measured: llvm-mca counts the cycles of the innermost loop of the kernel that ships, with its loads, for W1A1 and W2A2 by
popcount and W8A8 by dot, on its models of the Cortex-A53, -A72 and -A76 (Neoverse-N1).

Beside them the ceiling, the same instructions from registers, well interleaved; and the same loop written by hand with
NEON intrinsics (arm_inner.c), as gcc compiles it, where gcc for aarch64 is installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import arm_loops
from mpcompile import console
from mpcompile import grid as grids
from mpcompile.compiler.library import compiled
from mpcompile.errors import MpError
from mpcompile.files import atomic_path
from mpcompile.formats import Buffer
from mpcompile.graph import Quantizer
from mpcompile.kernels.layer import lower
from mpcompile.layer import ContractPart, ContractTerm, Fma, Layer, Load, Output, Round
from mpcompile.targets import load_target

MODELS = {"rpi3b": "cortex-a53", "rpi4b": "cortex-a72", "rpi5": "neoverse-n1"}
"""LLVM's models: of the A72 it has the A57's; of the A76 the Neoverse N1's, which is the same core."""

CHANNELS, SIZE = 128, 28
POPCOUNT, DOT = 0.85, 0.9
"""What of the ceiling a kernel must reach."""


def assembly(board: str, family: str, w: int, a: int) -> str:
    """Of the 128×28×28 → 128 3×3 layer's kernel."""
    target, rng = load_target(board), np.random.default_rng(0)
    grid_w = grids.bipolar() if w == 1 else grids.twos_complement(w, narrow=True)
    grid_a = grids.unsigned(a)
    shape = (CHANNELS, SIZE, SIZE)
    q = grid_w.value(rng.integers(0, grid_w.levels, (CHANNELS, CHANNELS, 3, 3)))
    layer = Layer("conv", ["x"], ["y"], shape, [ContractTerm([ContractPart("x", q, grid_w, (1, 1), (1, 1, 1, 1))])],
                  [Load(0), Fma(0, np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)),
                   Round(1, "half_even", 0, grid_a.levels - 1)], [Output("y", 2, Quantizer(grid_a, 1.0))])
    form = "planes" if family == "popcount" else "codes"

    def stored(name: str) -> list[Buffer]:
        return [Buffer(name, form, shape, grid_a, (1, 1, 1, 1)), Buffer(name, "sums", shape, grid_a, (1, 1, 1, 1), form)]

    lowered = lower(layer, {"x": stored("x")}, {"y": stored("y")}, {(0, 0): family}, target)
    return compiled({"main": lowered.func}, target.tvm_dict(1)).mod.inspect_source("asm")


def kinds(board: str, family: str) -> set[str]:
    """The instructions that do the work."""
    return {"cnt"} if family == "popcount" else {"sdot"} if board == "rpi5" else \
        {"smull", "smlal", "smull2", "smlal2", "mul", "mla"}


def ceiling(board: str, family: str) -> float:
    """Work a cycle of the instructions alone, in registers, eight of a kind after another."""
    lines, ops = [], kinds(board, family)
    for block in (0, 8):
        for i in range(8):
            t, acc = 16 + i, block + i
            if family == "popcount":
                add = f"udot v{acc}.4s, v{t}.16b, v25.16b" if board == "rpi5" else f"uadalp v{acc}.8h, v{t}.16b"
                steps = [f"and v{t}.16b, v24.16b, v25.16b", f"cnt v{t}.16b, v{t}.16b", add]
            elif board == "rpi5":
                steps = [f"sdot v{acc}.4s, v24.16b, v25.4b[0]"]
            else:
                steps = [f"smull v{t}.8h, v24.8b, v25.8b", f"smlal v{t}.8h, v26.8b, v27.8b",
                         f"sadalp v{acc}.4s, v{t}.8h"]
            lines += [(block, n, i, step) for n, step in enumerate(steps)]
    ordered = [step for *_, step in sorted(lines)]
    return arm_loops.work(ordered, ops) / arm_loops.cycles(ordered, MODELS[board], 200)


def by_hand(board: str, family: str) -> float | None:
    """Work a cycle of the loop in arm_inner.c; None without gcc for aarch64."""
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if not compiler:
        return None
    core = {"rpi3b": "cortex-a53", "rpi4b": "cortex-a72", "rpi5": "cortex-a76"}[board]
    done = subprocess.run([compiler, "-O3", "-S", f"-mcpu={core}", f"-DKERNEL_{family}", "-o", "-",
                           Path(__file__).with_name("arm_inner.c")], capture_output=True, text=True, check=True)
    return rate(done.stdout, board, family)


def rate(code: str, board: str, family: str) -> float:
    """Work a cycle of the innermost loop."""
    ops = kinds(board, family)
    loop = arm_loops.innermost(code, ops)
    return arm_loops.work(loop, ops) / arm_loops.cycles(loop, MODELS[board])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm_static", description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    rows, found = [], []
    for board in MODELS:
        for family, w, a in (("popcount", 1, 1), ("popcount", 2, 2), ("dot", 8, 8)):
            best = ceiling(board, family)
            here = rate(assembly(board, family, w, a), board, family)
            hand = by_hand(board, family)
            least = POPCOUNT if family == "popcount" else DOT
            unit = "bit-MAC" if family == "popcount" else "MAC"
            rows.append((board, MODELS[board], f"W{w}A{a}", family, f"{here:.1f}", f"{best:.1f} {unit}/cycle",
                         f"{here / best:.2f}", f"≥ {least} {'yes' if here >= least * best else 'NO'}",
                         "" if hand is None else f"{hand:.1f}"))
            found.append({"board": board, "model": MODELS[board], "w": w, "a": a, "family": family, "per_cycle": here,
                          "ceiling": best, "by_hand": hand, "must_reach": least})
    console.say(f"llvm-mca {arm_loops.version()}; the innermost loop of a {CHANNELS}×{SIZE}×{SIZE} → {CHANNELS} 3×3 layer")
    console.table(("board", "model", "bits", "family", ">a cycle", ">ceiling", ">of it", "must reach", ">by hand, gcc"),
                  rows)
    if args.json:
        with atomic_path(args.json) as path:
            path.write_text(json.dumps({"llvm": arm_loops.version(), "kernels": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MpError as error:
        console.complain(str(error))
        sys.exit(error.exit_code)
