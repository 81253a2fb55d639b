"""mpcompile search CONFIG.toml -o RUN_DIR"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from mpcompile import console


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.toml", help="what to search, on which data, for which budgets")
    parser.add_argument(
        "-o",
        "--output",
        metavar="RUN_DIR",
        required=True,
        help="gets table, checkpoints, a folder for each point, the front; an interrupted run goes on there",
    )


def work(args: argparse.Namespace) -> dict:
    from mpcompile.doctor import require_compiler
    from mpcompile.local_search import run_search
    from mpcompile.search import config

    config.read(args.config)  # what is wrong with it is said before anything is loaded
    require_compiler()
    with console.steps() as step:
        result = run_search(args.config, args.output, show=_Shown(step))
    _table(result)
    found = result.calibration
    console.say(
        f"the latency table's sum is calibrated by {found.slope:.3f} and {1e6 * found.offset:+.0f} µs over "
        f"{sum(p.measured is not None for p in result.points)} measured networks"
    )
    console.say(f"{args.output}: {len(result.front)} of {len(result.points)} networks on the front")
    return result.to_json()


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


def _table(result) -> None:
    on_front = {p.name for p in result.front}
    rows = [
        (
            p.name,
            f"{p.accuracy:.2%}",
            console.seconds(p.measured) if p.measured is not None else "",
            console.seconds(p.predicted) if p.predicted is not None else "",
            f"{p.normalised_bits:.2f}" if p.normalised_bits is not None else "",
            "yes" if p.name in on_front else "",
        )
        for p in sorted(result.points, key=lambda p: (p.measured is None, p.measured))
    ]
    console.table(("network", ">accuracy", ">measured", ">predicted", ">mean bits", "on the front"), rows)
