"""What a fused layer's kernel depends on, apart from its constants: two layers with equal specs share one function.

`describe` turns a `Layer` with its buffers and families into a frozen `LayerSpec` and the list of constant arrays;
`build.py` makes tensor expressions of the spec alone. So a constant that leaks into the code cannot go unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mpcompile.ir import planes
from mpcompile.ir.formats import Buffer, channel_pad
from mpcompile.kernels.dot import DotInstr
from mpcompile.kernels.lookup_form import Lookup
from mpcompile.kernels.popcount import Slots
from mpcompile.kernels.popcount_bytes import ByteCount

MOST_SIXTEENS = 13
"""Up to so many vectors of 16 channels are computed together; a register tile holds no more."""


@dataclass(frozen=True)
class PartSpec:
    """One convolution of a contraction.

    `multiplier`·D (or Σ c_s·P_s) + `offset`·window sum + constant + border = Σ w·a.
    """

    family: str
    data: Buffer
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int
    weight_shape: tuple[int, ...]
    weight_dtype: str
    slots: Slots | None = None
    count: ByteCount | None = None
    """Of a popcount by bytes (popcount_bytes.py); its plane pairs are then apart, with `pairs` = c_i·d_j."""
    pairs: tuple[tuple[int, ...], ...] = ()
    lookup: Lookup | None = None
    plane_weights: tuple[int, ...] = ()
    """Of a lookup's weights: c_i."""
    instr: DotInstr | None = None
    multiplier: int = 1
    offset: int = 0
    sums: Buffer | None = None
    constant: int | None = None
    """Row of the int32 table that is added, or None where it is all zeros."""
    border: tuple[int, int] | None = None
    """(classes of y, classes of x) of the exact border term, where the padded grid has no zero."""

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


@dataclass(frozen=True)
class Op:
    """An epilogue instruction. `kind` is the instruction's class name, or "Thresholds".

    args by kind (a row is a row of the float table, or of the int table for Thresholds):
    Load term | Fma x, row a, row b or −1 − id | Plus x, y | Divide x, row | Clamp x, lo, hi | Slope x, row
    Round x, rounding, lo, hi | Value level id, lo, step | Thresholds term, first row, count, flip row or −1
    """

    kind: str
    args: tuple


@dataclass(frozen=True)
class OutputSpec:
    """The stored forms of one result: value id, and its buffers (formats.py), in the order of the arguments."""

    value: int
    buffers: tuple[Buffer, ...]


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
    terms: tuple[ContractSpec | PoolSpec | ViewSpec, ...]
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
