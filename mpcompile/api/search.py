"""`mp.search` of any module, and `mp.run_search` of a configuration file: the search room with what it is handed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from mpcompile.search.trace.found import SearchResult
    from mpcompile.search.trace.task import Problem


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

    make_task = None
    if read.module:
        from mpcompile.search.trace.from_file import problem_of
        from mpcompile.search.trace.task import ModuleTask

        folder = Path(config).parent
        make_task = lambda: ModuleTask(_with_modules(problem_of(read.module, folder), folder), read)
    with open_pool(asked.tracker or None, asked.key or None, warn=warn, idle=IDLE_SECONDS) as pool:
        device = device_of(read, pool)
        result = run(Path(config), read, Path(out), device, show or silent, warn or (lambda line: None), make_task)
        _say(pool, warn)
        return result


def search(
    model: Any,
    train: Any,
    val: Any,
    *,
    budget: str | Sequence[str],
    example: Any = None,
    target: str = "native",
    method: str = "ilp",
    keep: Mapping[str, int] | None = None,
    out: str | os.PathLike = "run",
    epochs: float = 10,
    pretrain: float = 0,
    seed: int = 0,
    loss: Callable[[Any, Any], Any] | None = None,
    metric: Callable[[Any, Any], Any] | None = None,
    teacher: Any = None,
    uniform: Sequence[str] = (),
    options: Mapping[str, Mapping[str, Any]] | None = None,
    tracker: str | None = None,
    key: str | None = None,
    show: PhaseProgress | None = None,
    warn: Callable[[str], None] | None = None,
) -> SearchResult:
    """Searches bits for every convolution and linear layer of `model`, a torch.nn.Module as it is or the path of a float
    ONNX file, so that it takes `budget` on `target`: "12 ms", "w4a4" (what that takes everywhere), "60 %" (of the way from
    the fewest bits to the most), "2 GBitOps"; each of several is a network of the front. Trains, exports, compiles,
    verifies and times them in the folder `out`, and goes on where it was interrupted.

    train, val: (inputs, targets) as tensors, a map-style data set, or a DataLoader of one; networks are compared on `val`.
    example: an input, batch in front. keep: names of layers (with * and ?) → their bits; left out, the first and the last
    layer have 8. epochs: of the search and of the training at the bits; `pretrain`: of training in float before, 0 takes
    the module's weights as they are. loss(outputs, targets): left out, cross entropy; with one of your own, `metric`
    (outputs, targets of all of `val`) says what is better, by larger numbers. teacher: a module whose logits are learned
    from, too. uniform: networks to compare with, as "w8a8". options: any other key of a search's TOML, by table. tracker,
    key: devices, instead of this machine. `show` and `warn` as run_search has them.

    What cannot be quantized stays float, and `floats` of the result names it. Raises MpError's subclasses.
    """
    from mpcompile.remote.pool import open_pool
    from mpcompile.search.budgets import UNITS

    budgets = [budget] if isinstance(budget, str) else list(budget)
    bit_units = [unit for unit, (kind, _) in UNITS.items() if kind == "bitops"]
    kind = "bitops" if any(b.rstrip().endswith(unit) for b in budgets for unit in bit_units) else "latency"
    given: dict[str, Any] = {
        "seed": seed,
        "search": {"method": method, "epochs": epochs},
        "objective": {"kind": kind, "targets": budgets},
        "pretrain": {"epochs": pretrain},
        "retrain": {"epochs": epochs},
        "baselines": {"uniform": list(uniform)},
        "measure": {"target": str(target)},
    }
    for table, values in (options or {}).items():
        given[table] = {**given.get(table, {}), **values} if isinstance(values, Mapping) else values
    config = configs.of(given, "mp.search")
    asked = replace(config.measure, tracker=tracker or config.measure.tracker, key=key or config.measure.key)
    config = replace(config, measure=asked)
    check_free(out)
    from mpcompile.search.loop import silent
    from mpcompile.search.run import run_text
    from mpcompile.search.trace.found import result_of
    from mpcompile.search.trace.task import ModuleTask, Problem

    task = ModuleTask(_with_modules(Problem(model, train, val, example, loss, metric, teacher, keep)), config)
    named = model if isinstance(model, (str, os.PathLike)) else type(model).__name__
    text = f"# mp.search of {named}, {task.fingerprint}\n{configs.as_toml(config)}"
    with open_pool(asked.tracker or None, asked.key or None, warn=warn, idle=IDLE_SECONDS) as pool:
        device, told = device_of(config, pool), warn or (lambda line: None)
        result = run_text("mp.search", text.encode(), config, Path(out), device, show or silent, told, lambda: task)
        _say(pool, warn)
    return result_of(result, task)


def _with_modules(problem: Problem, folder: Path = Path()) -> Problem:
    """A float ONNX file of `folder` in the place of a module, or of its teacher, becomes one."""
    from dataclasses import replace as with_

    from mpcompile.api.float_file import module_of
    from mpcompile.search.trace.samples import samples_of

    files = {k: v for k in ("model", "teacher") if isinstance(v := getattr(problem, k), (str, os.PathLike))}
    if not files:
        return problem
    inputs, _ = next(samples_of(problem.val, "val").in_order(2, 2))
    return with_(problem, **{k: module_of(folder / v, inputs) for k, v in files.items()})


def _say(pool: DevicePool, warn: Callable[[str], None] | None) -> None:
    """What became of the devices."""
    if pool.source and warn:
        for line in pool.summary():
            warn(line)


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
