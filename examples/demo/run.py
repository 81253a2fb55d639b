"""The demo: a search by measured latency, from data to a report, as examples/demo/search.toml has it.

    python examples/demo/run.py [--config CONFIG.toml] [--out runs/demo] [--again]

It is `mpcompile search CONFIG.toml -o OUT`, after which one network is chosen: the fastest searched one that loses at
most a point of accuracy to the float network, or else the most accurate. It leaves in OUT report.html, report.json,
model.mpc (the chosen network's bundle), model.onnx (its QONNX), and all that the search keeps. Interrupt it at any
time: the next run goes on from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from mpcompile.cli import console
from mpcompile.cli import main as mpcompile
from mpcompile.files import atomic_path

HERE = Path(__file__).resolve().parent
MAY_LOSE = 0.01
"""Accuracy that the chosen network may lose to the float one."""


def chosen(report: dict) -> dict:
    """The point that is taken, of those in a search's report.json."""
    best = next((p["accuracy"] for p in report["points"] if p["kind"] == "float"), 1.0) - MAY_LOSE
    searched = [p for p in report["points"] if p["kind"] == "searched"]
    good = [p for p in searched if p["accuracy"] >= best]
    if good:
        return min(good, key=lambda p: report["derived"][p["name"]]["seconds"])
    return max(searched, key=lambda p: p["accuracy"])


def take(out: Path) -> None:
    """model.mpc and model.onnx of the chosen point into `out`."""
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    point = chosen(report)
    for name in ("model.mpc", "model.onnx"):
        with atomic_path(out / name) as temporary:
            shutil.copyfile(out / "points" / point["name"] / name, temporary)
    seconds = report["derived"][point["name"]]["seconds"]
    console.say(
        f"{out / 'model.mpc'}: {point['name']}, {point['accuracy']:.1%} in {console.seconds(seconds)}; "
        f"{out / 'report.html'} shows all"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "search.toml", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "runs" / "demo", help="default: %(default)s")
    parser.add_argument("--again", action="store_true", help="forget what an earlier run left in --out")
    options = parser.parse_args(arguments)
    before = options.out / "config.toml"
    if options.again and before.exists():
        shutil.rmtree(options.out)
    if before.exists() and options.config.exists() and before.read_bytes() != options.config.read_bytes():
        console.complain(f"{options.out} holds the run of another configuration: --again forgets it, --out keeps it")
        return 2
    began = time.monotonic()
    code = mpcompile(["search", str(options.config), "-o", str(options.out)])
    if code == 0:
        take(options.out)
        console.say(f"the demo took {(time.monotonic() - began) / 60:.1f} minutes")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
