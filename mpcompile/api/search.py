"""`mp.run_search`: a search with devices, the search room with what it is handed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mpcompile.errors import MissingDependency
from mpcompile.locks import check_free
from mpcompile.search import config as configs
from mpcompile.search.config import Config
from mpcompile.search.device import SearchDevice

if TYPE_CHECKING:
    from mpcompile.latency.progress import PhaseProgress
    from mpcompile.remote.pool import DevicePool
    from mpcompile.search.run import Result


IDLE_SECONDS = 30.0
"""Devices that were asked nothing for so long, because a network is being trained, are given back."""


def run_search(
    config: str | os.PathLike,
    out: str | os.PathLike,
    *,
    tracker: str | None = None,
    key: str | None = None,
    show: PhaseProgress | None = None,
    warn: Callable[[str], None] | None = None,
) -> Result:
    """Runs the search of a TOML file in the folder `out`, or goes on with it: measured on this machine, or on the
    devices of `key` that `tracker` ("HOST:PORT") has, which replace those of the file.

    They are given back where nothing is measured for a while. `warn` is told in one line what becomes of them, and what
    was damaged in the folder. Raises MpError's subclasses.
    """
    from mpcompile.remote.pool import open_pool

    check_free(out)
    read = configs.read(config)
    asked = replace(read.measure, tracker=tracker or read.measure.tracker, key=key or read.measure.key)
    read = replace(read, measure=asked)
    from mpcompile.search.loop import silent
    from mpcompile.search.run import run

    with open_pool(asked.tracker or None, asked.key or None, warn=warn, idle=IDLE_SECONDS) as pool:
        result = run(Path(config), read, Path(out), device_of(read, pool), show or silent, warn or (lambda line: None))
        if pool.source and warn:
            for line in pool.summary():
                warn(line)
        return result


def device_of(config: Config, pool: DevicePool) -> SearchDevice:
    """Compiles here for the configured target and times on the devices of `pool`. Raises MissingDependency where the
    baselines need ONNX Runtime and the devices have none."""
    from mpcompile.api.pool_search_device import PoolSearchDevice
    from mpcompile.latency import onnxruntime

    if config.baselines.float or config.baselines.int8:
        onnxruntime.require()
        if not pool.about.onnxruntime:
            raise MissingDependency(
                f"baselines.float and baselines.int8 are timed by ONNX Runtime, and {pool.name} has none: set both to "
                "false, or on the device: pip install onnxruntime==1.31.1"
            )
    return PoolSearchDevice(config.measure, pool)
