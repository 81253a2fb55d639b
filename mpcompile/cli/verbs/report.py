"""mpcompile report RUN_DIR -o report.html"""

from __future__ import annotations

import argparse
from pathlib import Path

from mpcompile.cli import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="what `mpcompile search -o` wrote; it may be unfinished")
    parser.add_argument(
        "-o",
        "--output",
        metavar="REPORT.html",
        help="the page; its numbers go beside it, as .json (default: report.html in RUN_DIR)",
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.report.page import write_report

    output = args.output or str(Path(args.run_dir) / "report.html")
    found = write_report(args.run_dir, output)
    console.say(found["headline"])
    for sentence in found["summary"]:
        console.say(sentence)
    if found["missing"]:
        console.say(f"the run is not finished; missing: {', '.join(found['missing'])}")
    console.say(f"{output} and {Path(output).with_suffix('.json').name} beside it: {len(found['points'])} networks")
    return found
