"""A plain CPU schedule for a PrimFunc of TVM's own operators: parallel outside, vectorised inside, contractions in register
tiles. Not tuned."""

from __future__ import annotations

import math

from tvm.s_tir import ScheduleError

from mpcompile.compiler.float_regions.contraction import Vectors, contract
from mpcompile.compiler.float_regions.functions import vectorizable
from mpcompile.compiler.float_regions.loops import WRITTEN
from mpcompile.kernels.tvm_names import PrimFunc, Schedule, tirx

PARALLEL_FROM = 1 << 14
"""Executions of a block from which starting threads pays."""

MAX_LANES = 16

SPATIAL, REDUCE = 0, 2
"""IterVar.iter_type: data parallel, commutative reduction."""


def schedule(function: PrimFunc, vectors: Vectors) -> PrimFunc:
    """The same function: elementwise steps inlined into elementwise readers, contractions by register tiles, other blocks
    parallel and vectorised.

    A block that is no plain loop nest (nested blocks, scans, extents not known) stays as it is, serial.
    """
    if function.attrs and WRITTEN in function.attrs:
        return vectorizable(function)
    sch = Schedule(function)
    for block in _blocks(sch):
        if _inlinable(sch, block):
            sch.compute_inline(block)
    tiled: set[str] = set()
    for name in [sch.get(b).name_hint for b in _blocks(sch) if _plain(sch, b) and REDUCE in _kinds(sch, b)]:
        trial = sch.copy()
        try:
            done = contract(trial, trial.get_sblock(name), vectors, PARALLEL_FROM)
        except ScheduleError:  # TVM cannot tile it, for whatever reason of its own: it stays a plain loop nest
            continue
        if done:
            sch = trial
            tiled.update({name, f"{name}_init", f"{name}_update"})
    for block in _blocks(sch):
        if sch.get(block).name_hint not in tiled and _plain(sch, block):
            _arrange(sch, block)
    return vectorizable(sch.mod["main"])


def _blocks(sch: Schedule) -> list:
    return list(sch.get_child_blocks(sch.get_sblock("root")))


def _kinds(sch: Schedule, block) -> list[int]:
    return [int(v.iter_type) for v in sch.get(block).iter_vars]


def _plain(sch: Schedule, block) -> bool:
    """Whether the block is a perfect nest of one loop an axis, with constant extents, and no block inside."""
    loops, kinds = sch.get_loops(block), _kinds(sch, block)
    stored = isinstance(sch.get(block).body, tirx.BufferStore)
    constant = all(isinstance(sch.get(loop).extent, tirx.IntImm) for loop in loops)
    return stored and constant and len(loops) == len(kinds) and set(kinds) <= {SPATIAL, REDUCE}


def _inlinable(sch: Schedule, block) -> bool:
    """A spatial block between spatial blocks; one that a reduction reads is computed once, not once a step."""
    readers = sch.get_consumers(block)
    spatial = [_plain(sch, b) and REDUCE not in _kinds(sch, b) for b in [block, *readers]]
    return bool(readers) and all(spatial)


def _arrange(sch: Schedule, block) -> None:
    loops, kinds = sch.get_loops(block), _kinds(sch, block)
    spatial = [loop for loop, kind in zip(loops, kinds) if kind == SPATIAL]
    reduce = [loop for loop, kind in zip(loops, kinds) if kind == REDUCE]
    if not spatial:
        return
    work = math.prod(int(sch.get(loop).extent) for loop in loops)
    lanes = _lanes(int(sch.get(spatial[-1]).extent))
    outer, inner = sch.split(spatial[-1], [None, lanes])
    sch.reorder(*spatial[:-1], outer, *reduce, inner)
    if lanes > 1:
        sch.vectorize(inner)
    # An axis without whole vectors stays a loop of its own, which LLVM makes vectors of.
    around = sch.fuse(*spatial[:-1], outer) if lanes >= 4 or len(spatial) == 1 else sch.fuse(*spatial[:-1])
    if work >= PARALLEL_FROM:
        sch.parallel(around)
    if reduce:
        sch.decompose_reduction(block, reduce[0])


def _lanes(extent: int) -> int:
    """The widest vector, at most 16 lanes, that divides the axis."""
    return max(n for n in range(1, MAX_LANES + 1) if extent % n == 0)
