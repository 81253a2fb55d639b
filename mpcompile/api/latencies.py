"""Latency tables for a room that knows neither compiler nor device: measured, read from a file, or modelled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile.errors import TargetError
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.progress import Progress
from mpcompile.latency.table import LatencyTable
from mpcompile.targets import Target, load_target

if TYPE_CHECKING:
    from mpcompile.remote.pool import DevicePool


class GivenTable:
    """One table, whatever is asked for: the caller looks whether it fits."""

    def __init__(self, table: LatencyTable):
        self.found = table

    @property
    def modelled(self) -> bool:
        return "modelled" in self.found.measured_on

    def table(self, model: Path, bits: BitCandidates, progress: Progress) -> LatencyTable:
        return self.found


class MeasuredTables:
    """As `mp.profile` measures them; each number is kept in the file `cells`."""

    modelled = False

    def __init__(self, target, cells: str, threads: int | None, rounds: int, pool: DevicePool):
        self.target, self.cells, self.threads, self.rounds, self.pool = target, cells, threads, rounds, pool

    def table(self, model: Path, bits: BitCandidates, progress: Progress) -> LatencyTable:
        from mpcompile.api.profile import profile

        found = profile(
            model,
            self.target,
            bits=bits,
            cache=self.cells,
            threads=self.threads,
            rounds=self.rounds,
            progress=progress,
            pool=self.pool,
        )
        assert isinstance(found, LatencyTable)  # it is, where bits are given
        return found


class ModelledTables:
    """What a board's cost model expects."""

    modelled = True

    def __init__(self, target: Target):
        self.target = target

    def table(self, model: Path, bits: BitCandidates, progress: Progress) -> LatencyTable:
        from mpcompile.api.modelled_workbench import modelled_table

        return modelled_table(model, self.target, bits, progress)


@contextmanager
def open_latencies(
    target: str | os.PathLike | Target,
    table: str | os.PathLike | LatencyTable | None,
    cells: str,
    threads: int | None,
    rounds: int,
    tracker: str | None,
    key: str | None,
    pool: DevicePool | None,
) -> Iterator[GivenTable | MeasuredTables | ModelledTables]:
    """From a table, where one is given; from devices, this machine included, that can run what is built for `target`; else,
    where no devices were named, by the board's cost model."""
    if table is not None:
        yield GivenTable(table if isinstance(table, LatencyTable) else LatencyTable.load(table))
        return
    from mpcompile.remote.fit import board_for
    from mpcompile.remote.pool import open_pool

    with ExitStack() as stack:
        named = pool.source if pool else (tracker or key)
        pool = pool or stack.enter_context(open_pool(tracker, key))
        elsewhere = False
        try:
            board_for(target, pool)
        except TargetError:
            if named:
                raise
            elsewhere = True
        if elsewhere:
            yield ModelledTables(target if isinstance(target, Target) else load_target(target))
        else:
            yield MeasuredTables(target, cells, threads, rounds, pool)
