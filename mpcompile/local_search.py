"""A search on this machine: the search room with the compiler, the latency table and the measurer that it is handed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile.latency.table import LatencyTable
from mpcompile.search import config as configs
from mpcompile.search.config import Config, Measure
from mpcompile.search.device import Device, Progress

if TYPE_CHECKING:
    from mpcompile.search.loop import Show
    from mpcompile.search.run import Result


def run_search(config: str | os.PathLike, out: str | os.PathLike, *, show: "Show | None" = None) -> "Result":
    """Runs the search of a TOML file in the folder `out`, or goes on with it. Raises MpError's subclasses."""
    read = configs.read(config)
    from mpcompile.search.loop import silent
    from mpcompile.search.run import run

    return run(Path(config), read, Path(out), local_device(read), show or silent)


def local_device(config: Config) -> Device:
    """Compiles for the configured target and times on this machine."""
    from mpcompile.latency import onnxruntime
    from mpcompile.local_checks import LocalChecks
    from mpcompile.targets import load_target
    from mpcompile.workbench import LocalWorkbench

    if config.baselines.float or config.baselines.int8:
        onnxruntime.require()
    measure: Measure = config.measure
    board = load_target(measure.target)
    bench = LocalWorkbench(board, measure.threads or None, measure.rounds)
    checks = LocalChecks(board, bench.threads, measure.rounds)

    def table(
        model: Path, w_bits: Sequence[int], a_bits: Sequence[int], cache: Path, progress: Progress
    ) -> LatencyTable:
        from mpcompile.workbench import profile

        bits = f"w{''.join(map(str, w_bits))}a{''.join(map(str, a_bits))}"
        return profile(
            model,
            board,
            bits=bits,
            cache=cache,
            threads=measure.threads or None,
            rounds=measure.rounds,
            progress=progress,
        )

    def whole(model: Path, bundle: Path, table: LatencyTable) -> float:
        from mpcompile.latency.measure import measure as timed
        from mpcompile.local_checks import WHOLE_MIN_TIME
        from mpcompile.runtime import open_bundle
        from mpcompile.workbench import WHOLE

        bench.compile(model, bundle, table)
        with open_bundle(bundle, threads=bench.threads) as opened:
            return timed({WHOLE: opened.timer()}, rounds=measure.rounds, min_time=WHOLE_MIN_TIME)[WHOLE].seconds

    return Device(
        bench.identity,
        table,
        whole,
        answers=checks.answers,
        race=checks.race,
        verify=checks.verify,
        profile=checks.profile,
        quantize=checks.quantize,
        about=checks.about(),
    )
