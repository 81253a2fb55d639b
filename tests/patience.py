"""How long tests wait. No speed is asked for: the limit ends what hangs, however slow and loaded the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 600
"""Seconds after which what is waited for is taken for lost."""


def until(what: Callable[[], Found], patience: float = PATIENCE, pause: float = 0.05) -> Found:
    """The first true answer of `what()`, asked again after each `pause` seconds. Fails where there is none in time."""
    end = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < end, f"not within {patience} s"
        time.sleep(pause)
    return found
