"""What the runtime's records of kinds have in common: a device that code must fit, calls in order, clocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HERE = "this machine"

Step = tuple[Callable[..., Any], tuple]
"""A function, and what it is called with."""


@dataclass(frozen=True)
class Machine:
    """A device that code must fit: its name for messages, kind, architecture, model ("AMD EPYC 9B45") and features."""

    name: str
    kind: str
    arch: str
    model: str
    features: frozenset[str]


@dataclass(frozen=True)
class Stopwatch:
    """`mark()` notes the moment when all that was started before is done; `between(a, b)` gives the seconds from one
    mark to another."""

    mark: Callable[[], Any]
    between: Callable[[Any, Any], float]
