"""The board that this process runs on, from the kernel's own report. Works without TVM and without LLVM."""

from __future__ import annotations

from dataclasses import replace

from mpcompile.errors import TargetError
from mpcompile.targets import cpu
from mpcompile.targets.board import list_boards, load_board
from mpcompile.targets.target import Target


def native_target() -> Target:
    """The shipped board whose CPU this is, else the fastest whose features it has; cores are its own.

    A recognised CPU that lacks one of its board's features (a virtual machine may hide some) is treated as unknown.
    Raises TargetError where no shipped board fits, naming what the least demanding one needs.
    """
    here = cpu.features()
    boards = [b for b in map(load_board, list_boards()) if b.arch == cpu.arch()]
    if not boards:
        raise TargetError(f"no target ships for {cpu.arch()} yet: write a TOML and pass its path")
    able = [b for b in boards if here.issuperset(b.features)]
    if not able:
        least = min(boards, key=lambda b: len(b.features))
        raise TargetError(
            f"this CPU ({cpu.name()}) lacks {', '.join(sorted(set(least.features) - here))}, "
            f"which {least.name} needs: no shipped target fits"
        )
    known = [b for b in able if b.is_made_for(*cpu.vendor())]
    # Of boards made for one CPU model (`cpus`) only their own CPUs have the cost figures and LLVM's schedule.
    base = (
        known[0] if known else max((b for b in able if not b.cpus), key=lambda b: (b.vector_bits, b.dot_macs_per_cycle))
    )
    return replace(
        base,
        name="native",
        description=f"{cpu.name()}, as {base.name}",
        cores=cpu.cores(),
    )
