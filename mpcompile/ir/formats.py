"""How a tensor lies in memory between two layers. numpy only; kernels, runtime and tests share these definitions.

| format   | dtype, buffer shape          | holds                                                                   |
|----------|------------------------------|-------------------------------------------------------------------------|
| `planes` | uint8 [HP, WP, P, W, B]      | the grid's P bit planes, words of B bytes (layout: planes.py)           |
| `codes`  | uint8 [HP, WP, CP]           | levels k = (q − lo)/step                                                |
| `float`  | float32 [H, W, CP]           | values, channels last                                                   |
| `plain`  | float32 [C, H, W] (any rank) | the source model's own layout: inputs, outputs, operators that TVM runs |
| `sums`   | int32 [HP, WP]               | beside planes: Σ_c Σ_i c_i·B_i of a pixel; beside codes: Σ_c k          |

HP = top + H + bottom and WP = left + W + right include the halo, wide enough for the padding of every consumer. The
halo stands for real 0: the planes, level and sum of q = 0 where the grid has it, else 0 bits / level 0 (and the
consumer adds the exact border term). Channels past the last are 0 bits, level 0, and count in no sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir import planes
from mpcompile.ir.grid import Grid

FORMATS = ("planes", "codes", "float", "plain", "sums")


def channel_pad(channels: int) -> int:
    """CP: 4 for so few channels (an image), else a multiple of 16: whole vectors."""
    to = 4 if channels <= 4 else 16
    return -(-channels // to) * to


@dataclass(frozen=True)
class Buffer:
    """One stored form of one tensor. `halo` = (top, left, bottom, right); shape = (C, H, W), or any for plain."""

    tensor: str
    format: str
    shape: tuple[int, ...]
    grid: Grid | None = None
    halo: tuple[int, int, int, int] = (0, 0, 0, 0)
    beside: str = ""
    """For `sums`: "planes" or "codes", the format whose sums they are."""

    def __post_init__(self):
        if self.format == "codes" and self.known_grid.levels > 256:
            raise ValueError(f"{self.tensor} has {self.known_grid.levels} levels: uint8 codes hold 256")

    @property
    def known_grid(self) -> Grid:
        """`grid`, of a buffer of integers: planes, codes and sums have one."""
        assert self.grid is not None, f"{self.key} has no grid"
        return self.grid

    @property
    def dtype(self) -> str:
        return {"planes": "uint8", "codes": "uint8", "sums": "int32"}.get(self.format, "float32")

    @property
    def buffer_shape(self) -> tuple[int, ...]:
        if self.format == "plain":
            return self.shape
        c, h, w = self.shape
        if self.format == "float":
            return (h, w, channel_pad(c))
        top, left, bottom, right = self.halo
        hp, wp = top + h + bottom, left + w + right
        if self.format == "planes":
            return (hp, wp, self.known_grid.planes, planes.words(c), planes.word_bytes(c))
        return (hp, wp, channel_pad(c)) if self.format == "codes" else (hp, wp)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.buffer_shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def key(self) -> str:
        """Its name in plans and messages."""
        return f"{self.tensor}:{self.format}" + (f"({self.beside})" if self.beside else "")

    def interior(self, data: np.ndarray) -> np.ndarray:
        """The buffer without its halo."""
        top, left, _, _ = self.halo
        _, h, w = self.shape
        return data[top : top + h, left : left + w]

    def to_json(self) -> dict:
        return {
            "tensor": self.tensor,
            "format": self.format,
            "shape": list(self.shape),
            "halo": list(self.halo),
            "grid": self.grid.to_json() if self.grid else None,
            "beside": self.beside,
        }


def halo_level(grid: Grid) -> int:
    """What the halo of a `codes` buffer holds."""
    return grid.zero_level if grid.has_zero else 0


def halo_pattern(grid: Grid) -> int:
    """What the halo of a `planes` buffer holds; bit i is plane i."""
    return int(grid.patterns[grid.zero_level]) if grid.has_zero else 0


def encode(values: np.ndarray, buffer: Buffer) -> np.ndarray:
    """Values q int [C, H, W] (float32 for float and plain) to the buffer's bytes, halo included."""
    if buffer.format == "plain":
        return np.ascontiguousarray(values, np.float32).reshape(buffer.shape)
    c, h, w = buffer.shape
    data = np.zeros(buffer.buffer_shape, buffer.dtype)
    last = np.asarray(values).reshape(c, h, w).transpose(1, 2, 0)
    if buffer.format == "float":
        data[..., :c] = last
        return data
    grid = buffer.known_grid
    if buffer.format == "codes":
        data[..., :c] = halo_level(grid)
        buffer.interior(data)[..., :c] = grid.level(last)
    elif buffer.format == "planes":
        halo = np.full((*data.shape[:2], c), halo_pattern(grid), np.int64)
        buffer.interior(halo)[...] = grid.patterns[grid.level(last)]
        bits = (halo[:, :, None, :] >> np.arange(grid.planes)[:, None]) & 1
        data[...] = planes.pack_words(bits.astype(np.uint8))
    else:
        of_level = np.arange(grid.levels) if buffer.beside == "codes" else grid.values - grid.offset
        halo = halo_level(grid) if buffer.beside == "codes" or grid.has_zero else None
        data[...] = c * (0 if halo is None else of_level[halo])
        buffer.interior(data)[...] = of_level[grid.level(last)].sum(-1)
    return data


def decode(data: np.ndarray, buffer: Buffer) -> np.ndarray:
    """The interior back to values: q int64 [C, H, W], or float32. Not for `sums`."""
    if buffer.format == "plain":
        return data.reshape(buffer.shape)
    c = buffer.shape[0]
    if buffer.format == "float":
        return np.ascontiguousarray(data[..., :c].transpose(2, 0, 1))
    inner = buffer.interior(data)
    if buffer.format == "codes":
        return buffer.known_grid.value(inner[..., :c]).transpose(2, 0, 1)
    bits = planes.unpack_words(inner, c)  # [H, W, P, C]
    return planes.from_planes(bits.transpose(2, 3, 0, 1), buffer.known_grid)
