"""The static plan: every call of a compiled network, in order, with the place of every buffer. numpy only.

The compiler's last pass writes it, a bundle's manifest carries it, and the executor does nothing but follow it.
Activations live in one workspace at fixed byte offsets (64-byte aligned), constants in one weights block; model inputs
and outputs are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir.formats import Buffer

SPACES = ("workspace", "weights", "input", "output")


@dataclass(frozen=True)
class Arg:
    """A tensor argument of a call. `offset` is in bytes, or, for input and output, which of them."""

    space: str
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def to_json(self) -> list:
        return [self.space, self.offset, self.dtype, list(self.shape)]


@dataclass(frozen=True)
class Call:
    """library[function](*args). `layer` is the node it belongs to."""

    function: str
    layer: str
    args: tuple[Arg, ...]

    def to_json(self) -> dict:
        return {"function": self.function, "layer": self.layer, "args": [a.to_json() for a in self.args]}


@dataclass(frozen=True)
class Placed:
    """A buffer of an activation: where it is, and from after which call until after which call its contents hold."""

    buffer: Buffer
    arg: Arg
    written: int
    last_read: int

    def to_json(self) -> dict:
        return {
            "buffer": self.buffer.to_json(),
            "arg": self.arg.to_json(),
            "written": self.written,
            "last_read": self.last_read,
        }


@dataclass(frozen=True)
class Port:
    """A model input or output, `shape` without the batch axis. `dtype` is the model's, which a run gives back; the plan's
    own arrays are float32, which holds integers exactly up to 2^24."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def to_json(self) -> dict:
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype}


def random_input(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """float32 for an input: normal numbers, or, of a type of integers, 0 and 1, which an index, too, may be."""
    if dtype == "float32":
        return rng.standard_normal(shape, np.float32)
    return rng.integers(0, 2, shape).astype(np.float32)


@dataclass(frozen=True)
class Plan:
    """`written` of a model input is −1. `live_bytes`: the largest set of activations that must be alive at once."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    calls: tuple[Call, ...]
    buffers: tuple[Placed, ...]
    workspace_bytes: int
    live_bytes: int

    def to_json(self) -> dict:
        return {
            "inputs": [p.to_json() for p in self.inputs],
            "outputs": [p.to_json() for p in self.outputs],
            "calls": [c.to_json() for c in self.calls],
            "buffers": [b.to_json() for b in self.buffers],
            "workspace_bytes": self.workspace_bytes,
            "live_bytes": self.live_bytes,
        }
