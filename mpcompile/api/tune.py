"""`mp.tune`: a model's layers tuned on devices, into a folder of records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.util import find_spec

from mpcompile.errors import MissingDependency, UsageError
from mpcompile.files import output_folder
from mpcompile.ir.graph import Graph
from mpcompile.latency.progress import LayerProgress
from mpcompile.latency.same_speed import SLOWER_HERE
from mpcompile.locks import exclusive_folder
from mpcompile.remote.fit import board_for, threads_on
from mpcompile.remote.pool import DevicePool, open_pool
from mpcompile.remote.sandbox import SandboxedDevice
from mpcompile.runtime.server.limits import Limits
from mpcompile.targets import Target, cpu, load_target
from mpcompile.tuning.runner import PoolRunner
from mpcompile.tuning.task import LocalBuilder, tasks_of
from mpcompile.tuning.tune import Tuned, Tuner


def tune(
    model: str | os.PathLike | Graph,
    target: str | os.PathLike | Target = "native",
    records: str | os.PathLike = "records",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    trials: int = 64,
    threads: int | None = 1,
    progress: LayerProgress | None = None,
    tracker: str | None = None,
    key: str | None = None,
    pool: DevicePool | None = None,
) -> Tuned:
    """Measures up to `trials` schedules of each distinct layer of `model`, compiled for `target`: on this machine, in a
    process of its own, so that a schedule that crashes costs its trial and no more; or on all the devices of `key` that
    `tracker` ("HOST:PORT") has, side by side; or on those of an open `pool`. `shapes`: input → its shape,
    batch in front, where the file leaves sizes open.

    records: a folder. What won goes to FAMILY.json in it, for compile_model(records=…), and each trial at once to
    FAMILY.trials.jsonl; so tuning can be stopped at any moment and goes on where it was. One process at a time: another
    one on the same folder raises UsageError. Raises MpError's subclasses.
    """
    from mpcompile.frontend import graph_of

    if trials < 1:
        raise UsageError(f"trials must be at least 1, not {trials}")
    if find_spec("xgboost") is None:  # MetaSchedule imports it only after the first batches
        raise MissingDependency('tuning needs xgboost: pip install "mpcompile[tune]"')
    graph = graph_of(model, shapes)
    here = pool is None and key is None and tracker is None
    devices = this_machine() if here else nullcontext(pool) if pool else open_pool(tracker, key)
    with output_folder(records) as folder, exclusive_folder(folder), devices as opened:
        board = board_for(load_target(target) if here and not isinstance(target, Target) else target, opened)
        runner = PoolRunner(opened, threads_on(opened.about, threads), elsewhere=not here and opened.elsewhere)
        builder = LocalBuilder(board, len(cpu.allowed()))
        try:
            return Tuner(board, folder, runner, builder, trials, progress).run(tasks_of(graph, board, runner.threads))
        finally:
            builder.close()


def this_machine(limits: Limits | None = None) -> DevicePool:
    """A pool of this machine, in a process of its own."""
    return DevicePool([SandboxedDevice(limits)], slower=SLOWER_HERE)
