"""`mp.profile`: a model's time layer by layer, or its latency table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from mpcompile.api.network_profile import NetworkProfile
from mpcompile.api.pool_workbench import PoolWorkbench
from mpcompile.ir.bits import BitCandidates
from mpcompile.ir.graph import Graph
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.latency.progress import Progress
from mpcompile.latency.table import LatencyTable
from mpcompile.locks import exclusive_file
from mpcompile.remote.fit import board_for
from mpcompile.remote.pool import DevicePool, open_pool
from mpcompile.targets import Target
from mpcompile.temporary import temporary_folder


def profile(
    model: str | os.PathLike | Graph,
    target: str | os.PathLike | Target = "native",
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    bits: str | BitCandidates | None = None,
    cache: str | os.PathLike | None = None,
    threads: int | None = None,
    rounds: int = 21,
    progress: Progress | None = None,
    tracker: str | None = None,
    key: str | None = None,
    pool: DevicePool | None = None,
) -> NetworkProfile | LatencyTable:
    """How long each layer of `model`, compiled for `target`, takes: on this machine, or on all the devices of `key`
    that `tracker` ("HOST:PORT") has, side by side; or on those of an open `pool`. `shapes`: input → its
    shape, batch in front, where the file leaves sizes open.

    With `bits` (candidates, or as text "w1234a1248") the latency table: every layer at every pair of them. What is
    measured goes to the file `cache` at once, and is not measured again; another process that was given the same file
    raises UsageError meanwhile. Without, each layer as it is. Raises MpError's subclasses.
    """
    from mpcompile.frontend import graph_of

    candidates = BitCandidates.parse(bits) if isinstance(bits, str) else bits
    graph = graph_of(model, shapes)
    with ExitStack() as stack:
        if candidates is not None:
            if cache is None:
                cache = stack.enter_context(temporary_folder()) / "cells.jsonl"
            stack.enter_context(exclusive_file(cache))
        pool = pool or stack.enter_context(open_pool(tracker, key))
        bench = PoolWorkbench(board_for(target, pool), pool, threads, rounds).among(graph)
        if candidates is None:
            return bench.profile(graph, progress)
        assert cache is not None  # it is a file of ours, where none was named
        table = build_table(graph, candidates, bench, Cache(cache), progress=progress)
        table.beside = bench.beside(graph, table)
        return table
