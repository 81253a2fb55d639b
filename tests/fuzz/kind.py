"""What a kind of input is: how one is made from a number, and what must be true of it. No input is random twice: seed and
number make it again."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from mpcompile.errors import MpError

Aside = Callable[[str], None]
"""Says whose code runs from now on: "" ours, else a witness's, whose crash is no fault of ours."""
Number = tuple[int, int]
"""(the run's seed, the input's number in it)."""


class Wrong(Exception):
    """What an input showed. The first word tells kinds of faults apart; the message is one line."""


class Kind(ABC):
    """A kind of input, all of whose members are the bytes of one file."""

    name: str
    suffix: str
    """Of the file."""
    share: float
    """Of the time of a run."""
    count: int
    """Inputs of a full run."""

    @abstractmethod
    def make(self, number: Number, without: frozenset[int] = frozenset()) -> bytes:
        """The input, less these of its edits."""

    def edits(self, number: Number) -> int:
        """How many edits it is made by."""
        return 0

    @abstractmethod
    def judge(self, content: bytes, folder: Path, aside: Aside) -> str:
        """What became of it, in a word or two. `folder` is empty. Raises Wrong at a fault; whatever else it raises is a
        fault, too."""

    def smaller(self, content: bytes) -> Iterator[bytes]:
        """Inputs like it with less in them, the least first, for shrinking."""
        return iter(())

    def rng(self, number: Number, *what: object) -> random.Random:
        return random.Random(" ".join(map(str, (self.name, *number, *what))))


def refused(error: MpError, says: str = "") -> str:
    """The outcome "refused". Raises Wrong where the message is not one line, or does not have `says` in it."""
    message = str(error)
    if not message or "\n" in message:
        raise Wrong(f"lines: a message of several lines, or of none: {message!r}")
    if says not in message:
        raise Wrong(f"unnamed: {says} is not named: {message}")
    return "refused"
