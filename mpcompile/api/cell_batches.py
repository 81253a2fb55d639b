"""How many cells of a latency table are timed in turn by one measurement, and built together.

They are timed in turn so that what disturbs the machine meets all of them, and so that the reference kernel's best is one
of a second or so and not of a moment. They are on disk when the measurement has ended; so what a kill costs is what one
measurement takes, and this is held near SECONDS, whatever the device. Rounds are not kept by themselves: samples that
were taken beside another process's reference would not be judged by one measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

SECONDS = 1.0
FIRST, MOST = 4, 24
"""Cells of a measurement: before any is known, and at most."""

Kernel = TypeVar("Kernel")
Built = TypeVar("Built")


class Pace:
    """How many fit into SECONDS, as the last measurement tells."""

    def __init__(self) -> None:
        self.at_once = FIRST

    def took(self, seconds: float, count: int) -> None:
        """A measurement of so many took so long."""
        self.at_once = max(1, min(MOST, int(SECONDS * count / max(seconds, 1e-9))))


class BuiltTogether(Generic[Kernel, Built]):
    """`build` of batch after batch, of several together where one has fewer kernels than there are cores.

    build(kernels): what was built of each. Called from one thread.
    """

    def __init__(
        self, batches: Sequence[Sequence[Kernel]], build: Callable[[Sequence[Kernel]], Sequence[Built]], cores: int
    ):
        self._batches, self._build, self._cores = batches, build, cores
        self._left = set(range(len(batches)))
        """Batches that were never built."""
        self._built: dict[int, Sequence[Built]] = {}

    def take(self, at: int) -> Sequence[Built]:
        """What was built of a batch; anew where it was taken before."""
        if at not in self._built:
            together, count = [at], len(self._batches[at])
            for later in range(at + 1, len(self._batches)):
                if count >= self._cores:
                    break
                if later in self._left:
                    together.append(later)
                    count += len(self._batches[later])
            built = iter(self._build([kernel for batch in together for kernel in self._batches[batch]]))
            for batch in together:
                self._built[batch] = [next(built) for _ in self._batches[batch]]
            self._left.difference_update(together)
        return self._built.pop(at)
