"""Records by the name of what they are for: how one is added without editing whoever asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from mpcompile.errors import TargetError

T = TypeVar("T")


class Registry(Generic[T]):
    """name → record. `what` says in messages what the records are: "runtime" for a kind of device, say."""

    def __init__(self, what: str, records: dict[str, T]):
        self._what = what
        self._records = dict(records)

    def add(self, name: str, record: T) -> None:
        """Raises ValueError where the name is taken."""
        if name in self._records:
            raise ValueError(f"there is a {self._what} {name} already")
        self._records[name] = record

    def remove(self, name: str) -> None:
        """The counterpart of `add`. Raises KeyError where there is no such name."""
        del self._records[name]

    def of(self, name: str) -> T:
        """Raises TargetError, in one line, where there is no such name."""
        try:
            return self._records[name]
        except KeyError:
            raise TargetError(f"there is no {self._what} {name}: there is {', '.join(self._records)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)
