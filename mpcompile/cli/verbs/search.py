"""mpcompile search CONFIG.toml -o RUN_DIR [--tracker H:P --key K]; mpcompile search --init NAME -o CONFIG.toml"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from mpcompile.cli import console, device_options
from mpcompile.errors import UsageError
from mpcompile.files import atomic_path


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG.toml", nargs="?", help="what to search, on which data, for which budgets"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="RUN_DIR",
        required=True,
        help="gets table, checkpoints, a folder for each point, the front; an interrupted run goes on there",
    )
    parser.add_argument(
        "--init",
        metavar="NAME",
        help="write a CONFIG.toml to begin with to the output instead, with every key explained: of digits (runs as it "
        "is), resnet20, resnet18 or module (yours)",
    )
    device_options.arguments(parser, "measure")
    parser.add_argument("--no-report", action="store_true", help="write no report.html and report.json into RUN_DIR")


def work(args: argparse.Namespace) -> tuple[dict, int]:
    if (args.config is None) == (args.init is None):
        raise UsageError("give either a CONFIG.toml to search by, or --init NAME to write one")
    return _init(args.init, Path(args.output)) if args.init else _search(args)


def _init(name: str, path: Path) -> tuple[dict, int]:
    from mpcompile.cli.starter import starter

    text = starter(name)
    if path.exists():
        raise UsageError(f"{path} is there already")
    with atomic_path(path) as made:
        made.write_text(text, encoding="utf-8")
    console.say(f"{path}: mpcompile search {path} -o RUN_DIR searches by it")
    return {"config": str(path)}, 0


def _search(args: argparse.Namespace) -> tuple[dict, int]:
    from mpcompile.api.search import run_search
    from mpcompile.cli.doctor import require_compiler
    from mpcompile.report import findings, page
    from mpcompile.report.read import read
    from mpcompile.search import config

    config.read(args.config)  # what is wrong with it is said before anything is loaded
    require_compiler()
    if not args.no_report:
        page.require()
    with console.steps() as step:
        result = run_search(
            args.config, args.output, tracker=args.tracker, key=args.key, show=_Shown(step), warn=console.complain
        )
    report = findings.report(read(result.folder))
    _table(report)
    found = result.calibration
    console.say(
        f"the latency table's sum is calibrated by {found.slope:.3f} and {1e6 * found.offset:+.0f} µs over "
        f"{sum(p.measured is not None for p in result.points)} measured networks"
    )
    for sentence in (report["headline"], *report["summary"]):
        console.say(sentence)
    if not args.no_report:
        page.write_report(result.folder, result.folder / "report.html")
        console.say(f"{result.folder / 'report.html'} shows all of it, report.json beside it holds the numbers")
    console.say(f"{args.output}: {len(result.front)} of {len(result.points)} networks on the front")
    checks = [point["verify"] for point in report["derived"].values() if point["verify"]]
    return {**result.to_json(), "headline": report["headline"]}, 0 if all(v["equal"] for v in checks) else 1


class _Shown:
    """What is being done, as it goes where stderr is a terminal, and one line on stdout for each thing that is
    finished."""

    def __init__(self, step: Callable[[str], None]):
        self.step, self.began = step, {}

    def __call__(self, what: str, done: int, total: int, figures: dict[str, float]) -> None:
        began, first = self.began.setdefault(what, (time.monotonic(), done))
        spent = time.monotonic() - began
        left = f", {spent / (done - first) * (total - done):.0f} s left" if done > first else ""
        found = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.step(f"{what}: {done} of {total}{left}{', ' * bool(found)}{found}")
        if done == total and total:
            console.say(f"{what}: {spent:.0f} s{', ' * bool(found)}{found}")


def _table(report: dict) -> None:
    """All networks, fastest first, with what the report says of them."""
    rows = []
    for p in sorted(report["points"], key=lambda p: report["derived"][p["name"]]["seconds"]):
        d = report["derived"][p["name"]]
        rows.append(
            (
                p["name"],
                f"{p['accuracy']:.2%}",
                console.seconds(d["seconds"]),
                console.seconds(p["predicted"]) if p["predicted"] is not None else "",
                f"{d['faster_than_int8']:.2f}×" if d["faster_than_int8"] else "",
                f"{p['weight_bytes'] / 1024:.1f}",
                f"{p['normalised_bits']:.2f}" if p["normalised_bits"] is not None else "",
                "yes" if d["on_front"] else "",
            )
        )
    columns = ("network", ">accuracy", ">latency", ">predicted", ">vs int8", ">weights, KiB", ">mean bits", "on front")
    console.table(columns, rows)
