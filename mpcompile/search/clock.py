"""How long each phase of a run took, over all the processes that worked on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mpcompile.errors import UsageError
from mpcompile.search.folder import Folder

PHASES = "phases.json"


class Clock:
    """Adds up seconds by the phase's name in the folder's phases.json; a kill loses at most `keep` of them."""

    def __init__(self, folder: Folder, keep: float = 20.0):
        self.folder, self.keep = folder, keep
        found = folder.read(PHASES) or {}
        self.seconds: dict[str, float] = dict(found.get("seconds", {}))
        self.began = found.get("began", _now())
        self._name: str | None = None
        self._since = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens in the block belongs to this phase. Phases do not hold others."""
        self._name, self._since = name, time.monotonic()
        try:
            yield
        except BaseException:
            with suppress(UsageError):  # a disk that is full: what the block says of it is to be heard
                self._add()
            raise
        else:
            self._add()
        finally:
            self._name = None

    def tick(self) -> None:
        """Called now and then within a phase."""
        if self._name is not None and time.monotonic() - self._since >= self.keep:
            self._add()

    def _add(self) -> None:
        assert self._name is not None  # it is called within a phase
        now = time.monotonic()
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._since = now
        self.folder.write(PHASES, {"began": self.began, "last": _now(), "seconds": self.seconds})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
