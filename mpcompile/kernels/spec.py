"""What a fused layer's kernel depends on, apart from its constants: two layers with equal specs share one function.

`describe` turns a `Layer` with its buffers and families into a frozen `LayerSpec` and the list of constant arrays;
`build.py` makes tensor expressions of the spec alone. So a constant that leaks into the code cannot go unnoticed.
"""

from __future__ import annotations

from dataclasses import dataclass

from mpcompile.formats import Buffer, channel_pad
from mpcompile.kernels.dot import DotInstr
from mpcompile.kernels.popcount import Slots


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


@dataclass(frozen=True)
class LayerSpec:
    """shape = (O, HO, WO); float and int tables have so many rows of `padded` columns.

    `padded` = formats.channel_pad(O) channels are computed, as `groups` × `vectors` × `lanes`: a group is what is
    packed together.
    """

    shape: tuple[int, int, int]
    terms: tuple[ContractSpec | PoolSpec | ViewSpec, ...]
    ops: tuple[Op, ...]
    outputs: tuple[OutputSpec, ...]
    float_rows: int
    int_rows: int

    @property
    def padded(self) -> int:
        return channel_pad(self.shape[0])

    @property
    def blocking(self) -> tuple[int, int, int]:
        """(groups, vectors, lanes): channel o = (group·vectors + vector)·lanes + lane."""
        group, lanes = min(self.padded, 64), min(self.padded, 8)
        return self.padded // group, group // lanes, lanes
