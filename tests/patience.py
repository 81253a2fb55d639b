"""How long tests wait. No speed is asked for: the limits end what hangs, however slow and loaded the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 600
"""Seconds for whole commands that compile, tune, emulate or install."""
SOON = 120
"""Seconds for what takes a moment where nothing is wrong: an answer, a device that is free again, the end of a process."""


def until(
    what: Callable[[], Found],
    patience: float = SOON,
    pause: float = 0.05,
    unless: Callable[[], object] = lambda: None,
) -> Found:
    """The first true answer of `what()`, asked again after each `pause` seconds.

    Fails where there is none in time, and at once, with what it says, where `unless()` is true: it can no longer come.
    """
    end = time.monotonic() + patience
    while True:
        hopeless = unless()
        if found := what():
            return found
        assert not hopeless, hopeless
        assert time.monotonic() < end, f"not within {patience} s"
        time.sleep(pause)
