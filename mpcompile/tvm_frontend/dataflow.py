"""A function of Relay or Relax as plain data: calls in order over values. What both IRs are read into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Dimension = int | str
"""A size, or the name of one that is not known before the module runs."""


class NotMatched(Exception):
    """Why an operator cannot be part of a region, in a few words: "its weights are not quantized"."""


@dataclass(eq=False)
class Value:
    """A tensor: `array` where it is a constant, `call` where a call makes it. `origin`: what stands for it in the IR."""

    shape: tuple[Dimension, ...]
    dtype: str
    array: np.ndarray | None = None
    call: Call | None = None
    origin: Any = None

    @property
    def constant(self) -> bool:
        """Whether it depends on no input."""
        return self.array is not None or (self.call is not None and self.call.constant)


@dataclass(eq=False)
class Call:
    """An operator at work. `op`: its name in both IRs, without "qnn." and "relax."; "" where it is none that is known.

    `name`: what users know it by (a variable, a place in a file). `attrs`: plain numbers, texts and tuples of them.
    `block`: which of the function's blocks it is in; `origin`: what stands for it in the IR; `absorbed`: calls that it
    stands for, too, and that nothing else reads.
    """

    op: str
    name: str
    inputs: list[Value]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    outputs: list[Value] = field(default_factory=list)
    block: int = 0
    origin: Any = None
    absorbed: list[Call] = field(default_factory=list)
    constant: bool = field(init=False)
    """Whether it depends on no input."""

    def __post_init__(self):
        self.constant = bool(self.inputs) and all(value.constant for value in self.inputs)

    @property
    def output(self) -> Value:
        return self.outputs[0]


@dataclass(eq=False)
class Dataflow:
    """A function's calls in the order in which they may run, and the values that it gives back."""

    name: str
    calls: list[Call]
    results: list[Value]

    def consumers(self) -> dict[Value, list[Call]]:
        """Value → the calls that read it, in order."""
        found: dict[Value, list[Call]] = {}
        for call in self.calls:
            for value in dict.fromkeys(call.inputs):
                found.setdefault(value, []).append(call)
        return found


def scalar(value: Value) -> float | None:
    """The number that a constant holds once or throughout, None where it is no such constant."""
    if value.array is None or not value.array.size or (value.array != value.array.flat[0]).any():
        return None
    return float(value.array.flat[0])


def known(shape: Sequence[Dimension]) -> tuple[int, ...]:
    """The sizes. Raises NotMatched where one is not known before the module runs."""
    for size in shape:
        if not isinstance(size, int):
            raise NotMatched(f"it has a size, {size}, that is known only when it runs")
    return tuple(int(size) for size in shape)
