"""python -m benchmarks.exported [NAME …] [--size N] [--rounds N] [-o FILE] [--json FILE] [--write]"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks import pages
from benchmarks.exported import EXPORTED
from mpcompile.targets import cpu


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.exported", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXPORTED)} (default: all)")
    parser.add_argument("--size", type=int, help="of a square input, instead of the network's usual one")
    parser.add_argument("--rounds", type=int, default=15, help="each network's time is the median of so many (15)")
    parser.add_argument("-o", "--output", metavar="FILE", help="only write the quantized file of the one network named")
    parser.add_argument("--json", metavar="FILE", help="the rows as JSON")
    parser.add_argument(
        "--write", action="store_true", help="into benchmarks/results and, by benchmarks.pages, the pages"
    )
    return parser


def main() -> int:
    parser = arguments()
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(EXPORTED))
    if unknown:
        parser.error(f"there is no network {unknown[0]}: name some of {', '.join(EXPORTED)}")
    if args.output and len(args.names) != 1:
        parser.error("-o writes one file: name one network")
    if args.write and (args.names or args.size or args.output):
        parser.error("--write is of all networks at their usual sizes")
    from benchmarks.exported.measure import measure, table
    from benchmarks.exported.quantized import write_quantized

    rows = []
    for name in args.names or EXPORTED:
        shape = EXPORTED[name].shape
        if args.size and shape[-1] == shape[-2]:
            shape = (shape[0], args.size, args.size)
        if args.output:
            write_quantized(name, Path(args.output), shape)
            return 0
        with tempfile.TemporaryDirectory() as folder:
            path = write_quantized(name, Path(folder) / f"{name}.onnx", shape)
            x = np.random.default_rng(1).standard_normal(shape, np.float32)
            rows.append(measure(name, path, x, args.rounds))
        print(table(rows[-1:], len(rows) == 1), flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")
    if args.write:
        write(rows, args.rounds)
        return pages.main([])
    return 0 if all(row["equal"] for row in rows) else 1


def write(rows: list[dict], rounds: int) -> None:
    """exported.json and exported.md of the results."""
    from benchmarks.exported.measure import table

    (pages.RESULTS / "exported.json").write_text(json.dumps(rows, indent=1) + "\n")
    at = f"On {cpu.name()}, one thread, medians of {rounds} rounds in turn with ONNX Runtime {version('onnxruntime')}."
    (pages.RESULTS / "exported.md").write_text(f"{at}\n\n{table(rows, True)}\n")


if __name__ == "__main__":
    sys.exit(main())
