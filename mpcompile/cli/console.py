"""What the commands print: tables and lines to stdout, progress and complaints to stderr. With rich, no markup."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

PIPED_WIDTH = 200  # rich would cut tables to 80 columns where it sees no terminal
SPEED_SECONDS = 600.0  # the time left is told from so much of what has passed: a step may take minutes on a slow device


def _console(stream):
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """rich would end the process with 1; the command line has its own code for this."""
            raise BrokenPipeError

    return Quiet(
        file=stream, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else PIPED_WIDTH
    )


def printable(text: str) -> str:
    """With control characters as escapes (\\x1b): names from a file must not steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def say(line: str) -> None:
    """One line to stdout."""
    print(printable(line), flush=True)


def complain(line: str) -> None:
    """One line to stderr: whatever the message held, it stays one."""
    print("mpcompile: " + printable(" ".join(line.split())), file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table to stdout. A column whose name begins with ">" is right-aligned (numbers)."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(
        title=Text(printable(title)) if title else None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in columns:
        right = name.startswith(">")
        found.add_column(Text(name.lstrip(">")), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        found.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    _console(sys.stdout).print(found)


@contextmanager
def progress(label: str) -> Iterator:
    """Yields update(done, total, what=""): a bar, the time taken and the time left, on stderr while the block runs, and
    only where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total, what="": None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=_console(sys.stderr),
        transient=True,
        speed_estimate_period=SPEED_SECONDS,
    ) as bars:
        task = bars.add_task(label, total=None)
        yield lambda done, total, what="": bars.update(
            task, completed=done, total=total, description=printable(f"{label} {what}".rstrip())
        )


@contextmanager
def steps() -> Iterator:
    """Yields step(text): what is being done right now, on stderr while the block runs, and only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.text import Text

    with _console(sys.stderr).status(Text("starting")) as status:
        yield lambda text: status.update(Text(printable(text)))


def seconds(value: float) -> str:
    """A time with three digits and a fitting unit."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1 or unit == "µs":
            break
    return f"{value * factor:.3g} {unit}" if value * factor < 1000 else f"{value * factor:.0f} {unit}"


def tile(decided: dict) -> str:
    """A schedule's tile in a few letters: "14 4x16" of a CPU's, then what differs from the default's zeros."""
    first = ["{row} {pixels}x{block}".format_map(decided)] if {"row", "pixels", "block"} <= decided.keys() else []
    rest = {k: v for k, v in decided.items() if k not in ("row", "pixels", "block") and v not in (0, False, "")}
    rest = {k: v for k, v in rest.items() if (k, v) != ("lines", 1)}
    words = [k.replace("_", " ") if v is True else f"{k} {v}" for k, v in rest.items()]
    return ", ".join([*first, *words])


def count(value: float) -> str:
    """A large count with a fitting letter: 1.2 M."""
    for factor, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{letter}"
    return f"{value:.0f}"


def size(nbytes: int) -> str:
    """Bytes with a fitting unit."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= factor:
            return f"{nbytes / factor:.1f} {unit}"
    return f"{nbytes} bytes"
