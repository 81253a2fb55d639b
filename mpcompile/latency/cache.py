"""Measured times on disk: a file of JSON lines that only grows, so that a process may die at any moment."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from mpcompile.errors import UsageError

Seconds = Annotated[float, Meta(gt=0, lt=1000)]
"""Of anything that is measured here: one run of a layer, a network, or the reference kernel."""


class Line(Struct, frozen=True):
    """What a file has on a line. What is not of its kind's types, or not `consistent`, is as if it had never been."""

    key: str

    @property
    def consistent(self) -> bool:
        """Whether its numbers can be true beside each other."""
        return True


Kind = TypeVar("Kind", bound=Line)


class Lines(Generic[Kind]):
    """key → line of a file that holds lines of one kind.

    What `put` takes is on disk when it returns; a line that was cut short or damaged is as if it had never been.
    """

    def __init__(self, path: str | os.PathLike, kind: type[Kind]):
        self.path = Path(path)
        self._lines: dict[str, Kind] = {}
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            text = b""
        except OSError as error:
            raise UsageError(f"cannot read the cache {self.path}: {error.strerror}") from error
        decoder = msgspec.json.Decoder(kind)
        for line in text.splitlines():
            try:
                found = decoder.decode(line)
            except (msgspec.MsgspecError, ValueError):
                continue
            if found.consistent:
                self._keep(found)
        self._cut = bool(text) and not text.endswith(b"\n")

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Kind]:
        """The lines, in the order in which their keys were first put."""
        return iter(self._lines.values())

    def get(self, key: str) -> Kind | None:
        return self._lines.get(key)

    def put(self, lines: Iterable[Kind]) -> None:
        """Appends them, as a rule with a single write. Raises UsageError where the file cannot be written."""
        lines = list(lines)
        text = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        try:
            with open(self.path, "ab", buffering=0) as file:
                left = b"\n" * self._cut + text
                while left:  # a disk that fills up takes a part, and says so only when it is given the rest
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
        except OSError as error:
            self._cut = True
            raise UsageError(f"cannot write the cache {self.path}: {error.strerror}") from error
        self._cut = False
        for line in lines:
            self._keep(line)

    def _keep(self, line: Kind) -> None:
        self._lines[line.key] = line


class CellTime(Line, frozen=True):
    """A number of the latency table: of `layer`, in `row` (base, reads, packs, views), `of` a convolution or quantizer,
    at these bits, in this form. Seconds of one run of `kernel` on `device`, quartiles, and the reference kernel's best
    beside them."""

    layer: str
    row: str
    of: str
    bits: tuple[int, ...]
    form: str
    kernel: str
    seconds: Seconds
    low: Seconds
    high: Seconds
    device: str
    reference: Seconds

    @property
    def consistent(self) -> bool:
        return self.low <= self.seconds <= self.high


class Cache(Lines[CellTime]):
    """The latency table's cells, by key and by kernel: what was measured, whatever asked for it."""

    def __init__(self, path: str | os.PathLike):
        self._kernels: dict[str, CellTime] = {}
        super().__init__(path, CellTime)

    def of_kernel(self, kernel: str) -> CellTime | None:
        """The line of any cell that has this kernel."""
        return self._kernels.get(kernel)

    def _keep(self, line: CellTime) -> None:
        super()._keep(line)
        self._kernels[line.kernel] = line
