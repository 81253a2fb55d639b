"""Whether the devices of a pool can run what a user asks for, before anything is built or sent."""

from __future__ import annotations

import os

from mpcompile.errors import TargetError, UsageError
from mpcompile.remote.pool import DevicePool
from mpcompile.runtime.device import About
from mpcompile.runtime.driver import driver_of, lacks
from mpcompile.targets import Target, list_targets, load_target


def board_for(target: str | os.PathLike | Target, pool: DevicePool) -> Target:
    """The target, where the devices can run what is built for it.

    Raises UsageError at "native" where they are not this machine, TargetError where they lack something.
    """
    about = pool.about
    if target == "native" and pool.source:
        fits = [name for name in list_targets()[1:] if not _lacks(load_target(name), about)]
        raise UsageError(
            f"target native is this machine, and {pool.source.name} is another ({about.arch}, "
            f"{about.cpu}): name its board; it can run what is built for "
            f"{', '.join(fits) or 'none that ships'}"
        )
    board = target if isinstance(target, Target) else load_target(target)
    if board.arch == "armv7l":
        raise TargetError(
            f"there is no TVM for 32-bit ARM, so nothing can be measured by the layer for {board.name}: "
            f"mpcompile bench MODEL.onnx --target {board.name} --ssh [USER@]HOST times whole networks "
            "there"
        )
    if lacks := _lacks(board, about):
        elsewhere = "" if pool.source else "; --tracker and --key name devices that can"
        raise TargetError(f"{pool.name} cannot run what is built for {board.name}: it {lacks}{elsewhere}")
    return board


def _lacks(board: Target, about: About) -> str:
    machines = about.machines("")
    if board.kind not in machines:
        return f"has no {driver_of(board).noun}"
    missing, machine = lacks(board, machines), machines[board.kind]
    if missing is None:
        return f"is {machine.arch}"
    return f"({machine.model}) lacks {', '.join(sorted(missing))}" if missing else ""


def threads_on(about: About, threads: int | None) -> int:
    """None: the physical cores. Raises UsageError where such a device cannot have so many."""
    found = about.cores if threads is None else threads
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise UsageError(f"threads must be a whole number from 1 up, not {found!r}")
    if found > about.cpus:
        raise UsageError(f"{found} threads asked for, but {about.cpu} has {about.cpus} CPUs for them")
    return found
