"""What a fused layer's kernel depends on, apart from its constants: two layers with equal specs share one function.

`describe` turns a `Layer` with its buffers and families into a frozen `LayerSpec` and the list of constant arrays;
`build.py` makes tensor expressions of the spec alone. So a constant that leaks into the code cannot go unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from mpcompile.ir import planes
from mpcompile.ir.formats import Buffer, channel_pad
from mpcompile.ir.graph import Picked
from mpcompile.ir.order import Order

IMAGE_CHANNELS = 4
"""Tensors of so few channels are never stored in planes."""

MOST_SIXTEENS = 13
"""Up to so many vectors of 16 channels are computed together; a register tile holds no more."""


@dataclass(frozen=True, kw_only=True)
class PartSpec:
    """One convolution of a contraction: what all families have in common. Each family's own spec derives from it
    (families/NAME.py).

    `multiplier`·D + `offset`·window sum + constant + border = Σ w·a, where D is what the family computes.
    """

    family: ClassVar[str]
    """Its name."""
    word: ClassVar[str] = ""
    """The dtype of the words as which it reads planes, [HP, WP, P, words]; "" where it reads the buffer as it is."""
    data: Buffer
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int
    weight_shape: tuple[int, ...]
    weight_dtype: str
    multiplier: int = 1
    offset: int = 0
    sums: Buffer | None = None
    constant: int | None = None
    """Row of the int32 table that is added, or None where it is all zeros."""
    border: tuple[int, int] | None = None
    """(classes of y, classes of x) of the exact border term, where the padded grid has no zero."""

    @property
    def table_shape(self) -> tuple[int, ...]:
        """Of the int32 constants that its family needs beside the weights; () where it needs none."""
        return ()

    @property
    def origin(self) -> tuple[int, int]:
        """(y, x) in the stored data of the first tap of output (0, 0)."""
        return self.data.halo[0] - self.pads[0], self.data.halo[1] - self.pads[1]


@dataclass(frozen=True)
class ContractSpec:
    parts: tuple[PartSpec, ...]


@dataclass(frozen=True)
class PoolSpec:
    data: Buffer
    kind: str
    kernel: tuple[int, int]
    strides: tuple[int, int]
    pads: tuple[int, int, int, int]


@dataclass(frozen=True)
class ViewSpec:
    data: Buffer
    along: tuple[Picked, Picked, Picked] | None = None


@dataclass(frozen=True)
class RearrangeSpec:
    data: Buffer
    order: Order
    whole: tuple[int, int, int]
    along: tuple[Picked, Picked, Picked]


@dataclass(frozen=True)
class InterpolateSpec:
    """Of what lies between, and how much of it: constants."""

    data: Buffer


@dataclass(frozen=True)
class Op:
    """An epilogue instruction. `kind` is the instruction's class name, or "Thresholds".

    args by kind (a row is a row of the float table, or of the int table for Thresholds):
    Load term | Fma x, row a, row b or −1 − id | Plus, Times, Largest, Smallest x, y | Apply x, function, *parameters
    LookUp level id, number of the table, its size
    Divide x, row | Clamp x, lo, hi | Slope x, row
    Round x, rounding, lo, hi | Value level id, lo, step | Thresholds term, first row, count, flip row or −1
    """

    kind: str
    args: tuple


@dataclass(frozen=True)
class OutputSpec:
    """The stored forms of one result: value id, and its buffers (formats.py), in the order of the arguments."""

    value: int
    buffers: tuple[Buffer, ...]


@dataclass(frozen=True)
class ChannelsLastSpec(OutputSpec):
    """The same of a plain tensor whose axes are lines, columns, channels, or columns, channels."""


def block_channels(channels: int, outputs: Iterable[Buffer]) -> tuple[int, int, int]:
    """How a layer that writes `outputs` computes its channels: (groups, vectors, lanes).

    A group is what is computed and packed together: a word where planes are written, else about 64 channels that divide
    formats.channel_pad(channels).
    """
    if any(b.format == "planes" for b in outputs):
        lanes = planes.word_bytes(channels)
        return planes.words(channels), planes.per_word(channels) // lanes, lanes
    padded = channel_pad(channels)
    if padded < 16:
        return 1, 1, padded
    sixteens = padded // 16
    fitting = [n for n in range(1, MOST_SIXTEENS + 1) if sixteens % n == 0]
    at_once = min(fitting, key=lambda n: (n < 3, abs(n - 4)))
    return sixteens // at_once, 2 * at_once, 8


@dataclass(frozen=True)
class LayerSpec:
    """shape = (O, HO, WO); float and int tables have so many rows of `padded` columns.

    `padded` channels are computed, as `groups` × `vectors` × `lanes` (`block_channels`).
    """

    shape: tuple[int, int, int]
    terms: tuple[ContractSpec | PoolSpec | ViewSpec | RearrangeSpec | InterpolateSpec, ...]
    ops: tuple[Op, ...]
    outputs: tuple[OutputSpec, ...]
    float_rows: int
    int_rows: int

    @property
    def padded(self) -> int:
        groups, vectors, lanes = self.blocking
        return groups * vectors * lanes

    @property
    def blocking(self) -> tuple[int, int, int]:
        """(groups, vectors, lanes): channel o = (group·vectors + vector)·lanes + lane."""
        return block_channels(self.shape[0], [b for o in self.outputs for b in o.buffers])

    @property
    def parts(self) -> list[PartSpec]:
        """Those of all its contractions."""
        return [part for term in self.terms if isinstance(term, ContractSpec) for part in term.parts]

    def place(self, part: PartSpec) -> tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int]]:
        """Where a part's taps lie: HO, WO, strides, dilations, and the origin in its stored data."""
        return *self.shape[1:], part.strides, part.dilations, part.origin
