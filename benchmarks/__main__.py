"""python -m benchmarks: measures what mpcompile promises about speed on x86.

Prints the table, and writes it as JSON and Markdown.

Every ratio comes from one interleaved run; absolute times stand beside them for information only.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path

from benchmarks import layers, mixture, prediction, resnet, roofline, small_layers, whole_networks
from benchmarks.compiled import Bench
from benchmarks.networks import NETWORKS
from benchmarks.row import HEADERS, Row, markdown, summary
from benchmarks.tvm_bitserial import Bitserial
from mpcompile import __version__
from mpcompile.cli.console import complain, table
from mpcompile.errors import MpError
from mpcompile.latency.measure import measure
from mpcompile.targets import cpu, load_target

PARTS = (
    "popcount",
    "dot",
    "small",
    "resnet",
    "threads",
    "memory",
    "compile",
    "import",
    "search",
    "prediction",
    "networks",
)
RESULTS = Path(__file__).with_name("results")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some of the rows (default: all)")
    parser.add_argument("--rounds", type=int, default=21, help="good samples of each (default: %(default)s)")
    parser.add_argument("--target", default="native", help="what to compile for (default: %(default)s)")
    parser.add_argument(
        "--without-tvm019", action="store_true", help="leave the comparison with TVM 0.19 out (it needs make relay-env)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for benchmarks.json and benchmarks.md "
        "(default: benchmarks/results where all parts run; those of --only are then not written)",
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=list(NETWORKS),
        metavar="NAME",
        help=f"which whole networks: {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="keep networks and bundles there, and take what is there already: empty it when the compiler has changed",
    )
    parser.add_argument("--prepare", action="store_true", help="only make and compile whole networks, into --folder")
    args = parser.parse_args()
    if args.prepare and not args.folder:
        parser.error("--prepare needs --folder")
    bench = Bench(args.target, say=lambda line: print(line, file=sys.stderr, flush=True), folder=args.folder)
    try:
        if args.prepare:
            for name in args.networks:
                whole_networks.prepare(bench, name)
            return 0
        if "networks" in args.only:
            _networks(bench, args)
        if set(args.only) == {"networks"}:
            return 0
        rows, machine = _rows(bench, args), _machine(args.target)
    except MpError as error:
        complain(str(error))
        return error.exit_code
    finally:
        bench.close()
    output = args.output or (RESULTS if set(args.only) == set(PARTS) else None)  # a part must not replace the whole
    if output:
        _write(output, rows, machine)
    table(HEADERS, [row.cells() for row in rows])
    judged = [row for row in rows if row.target is not None]
    print(
        f"{sum(row.reached is True for row in judged)} of {len(judged)} rows reached; "
        + (f"written to {output}" if output else "written nowhere (--output DIR)")
    )
    return 0


def _networks(bench: Bench, args: argparse.Namespace) -> None:
    """Whole networks: a table of their own, kept network by network."""
    rows: list[Row] = []
    output = args.output or RESULTS
    for name in args.networks:
        result = whole_networks.measured(bench, name, args.rounds)
        whole_networks.keep(output, result)
        rows += whole_networks.rows(result)
    table(HEADERS, [row.cells() for row in rows])
    print(f"written to {output / whole_networks.FILE}")


def _rows(bench: Bench, args: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    if "resnet" in args.only:
        rows += resnet.end_to_end_rows(bench, args.rounds)
    if "threads" in args.only:
        rows += resnet.thread_rows(bench, args.rounds)
    if "popcount" in args.only:
        tvm, missing = _tvm019(bench, args)
        try:
            rows += layers.popcount_rows(bench, args.rounds, tvm, missing)
        finally:
            if tvm:
                tvm.close()
    if "dot" in args.only:
        rows += layers.dot_rows(bench, args.rounds)
    if "small" in args.only:
        rows += small_layers.rows(bench, args.rounds)
    if "memory" in args.only:
        rows.append(resnet.memory_row(bench))
    if "compile" in args.only:
        rows.append(resnet.compile_row(bench))
    if "import" in args.only:
        rows.append(resnet.import_row())
    if "search" in args.only:
        rows += mixture.rows(args.rounds)
    if "prediction" in args.only:
        rows += prediction.rows(bench.folder / "prediction", args.rounds, target=args.target, say=bench.say)
    return rows


def _tvm019(bench: Bench, args: argparse.Namespace) -> tuple[Bitserial | None, str]:
    if args.without_tvm019:
        return None, "left out"
    try:
        return Bitserial(load_target(bench.target).mcpu), ""
    except MpError as error:
        return None, str(error)


def _machine(target: str) -> dict:
    """What the numbers were measured on."""
    found = measure(roofline.timers(target))
    ceilings = roofline.Ceilings.of(found, target)
    return {
        "cpu": cpu.name(),
        "cores": cpu.cores(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mpcompile": __version__,
        "target": load_target(target).description,
        "ceilings": ceilings.to_json(),
        "ceilings_text": str(ceilings),
        "when": time.strftime("%Y-%m-%d"),
    }


def _write(folder: Path, rows: list[Row], machine: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = {"machine": machine, "rows": [row.to_json() for row in rows]}
    (folder / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")
    ceilings = "\n".join("    " + line for line in machine["ceilings_text"].splitlines())
    about = f"{machine['cpu']}, {machine['cores']} cores, {machine['when']}. Ceilings of one core:\n\n{ceilings}\n\n"
    (folder / "benchmarks.md").write_text(about + markdown(rows))
    (folder / "summary.md").write_text(about + summary(rows))


if __name__ == "__main__":
    sys.exit(main())
