"""Reading and writing the stored formats of `formats.py` inside a kernel, without any step across lanes."""

from __future__ import annotations

from dataclasses import replace

from mpcompile.errors import ModelError
from mpcompile.ir import planes
from mpcompile.ir.formats import Buffer
from mpcompile.ir.grid import Grid
from mpcompile.kernels.late_tvm import te, tirx
from mpcompile.kernels.primitives import popcount


def anonymous(buffer: Buffer, number: int) -> Buffer:
    """The buffer with a number for its tensor's name: what a kernel depends on."""
    return replace(buffer, tensor=f"t{number}")


def first_pattern(grid: Grid) -> int:
    """p0 of a grid whose patterns count up: pattern(level) = (level + p0) mod 2^planes.

    Raises ModelError for a grid that is stored in planes but not positional (sign-magnitude).
    """
    p0 = int(grid.patterns[0])
    if any(int(p) != (k + p0) % (1 << grid.planes) for k, p in enumerate(grid.patterns)):
        raise ModelError(f"activations on a {grid} cannot be packed into planes: its patterns do not count up")
    return p0


def placeholder(buffer: Buffer, name: str, words: str = ""):
    """The kernel's argument for a buffer.

    `words`: how planes are read, as "uint32" [HP, WP, P, B·W/4] or "uint8" [HP, WP, P, B·W], the same bytes.
    """
    shape = buffer.buffer_shape
    if words:
        count = shape[-2] * shape[-1] // (4 if words == "uint32" else 1)
        return te.placeholder((*shape[:-2], count), words, name)
    return te.placeholder(shape, buffer.dtype, name)


def read(data, buffer: Buffer, o, y, x):
    """Value of channel o at (y, x) of the interior: int32 q of a quantized tensor, else float32.

    o, y, x are in range.
    """
    if buffer.format == "plain":
        index = (o, y, x)[: len(buffer.shape)] if len(buffer.shape) != 2 else (o, x)
        return data[index]
    if buffer.format == "float":
        return data[y, x, o]
    top, left, _, _ = buffer.halo
    grid = buffer.known_grid
    if buffer.format == "codes":
        level = data[y + top, x + left, o].astype("int32")
        q = level * grid.step if grid.step != 1 else level
        return q + grid.lo if grid.lo else q
    share, lanes = planes.per_word(buffer.shape[0]), planes.word_bytes(buffer.shape[0])
    lane, bit = o % lanes, (o % share // lanes).astype("int32")
    total = tirx.const(grid.offset, "int32")
    for i, weight in enumerate(grid.plane_weights):
        byte = data[y + top, x + left, i, o // share, lane].astype("int32")
        total = total + ((byte >> bit) & 1) * weight
    return total


def pack(level, buffer: Buffer, name: str, bits_name: str):
    """uint8 [H, W, P, words, bytes] of level[y, x, word, k, lane] int32: bit k of byte l is channel bytes·k + l.

    The stage `bits_name` before it adds the bits up in int32; k is its reduction axis.
    """
    channels, height, width = buffer.shape
    grid = buffer.known_grid
    p0 = first_pattern(grid)
    share, lanes = planes.per_word(channels), planes.word_bytes(channels)
    k = te.reduce_axis((0, share // lanes), "k")

    def bits(y, x, j, w, lane):
        pattern = level[y, x, w, k, lane] + p0 if p0 else level[y, x, w, k, lane]
        bit = (pattern >> j) & 1
        if channels != share * planes.words(channels):
            bit = tirx.Select(w * share + lanes * k + lane < channels, bit, tirx.const(0, "int32"))
        return te.sum(bit << k, axis=k)

    shape = (height, width, grid.planes, planes.words(channels), lanes)
    gathered = te.compute(shape, bits, name=bits_name)
    return te.compute(shape, lambda *at: gathered[at].astype("uint8"), name=name)


def sum_planes(packed, buffer: Buffer, name: str):
    """int32 [H, W]: Σ_c Σ_i c_i·B_i, from the packed bytes."""
    height, width, plane_count, words, lanes = (int(n) for n in packed.shape)
    j, w = te.reduce_axis((0, plane_count), "j"), te.reduce_axis((0, words), "w")
    lane = te.reduce_axis((0, lanes), "lane")

    def total(y, x):
        weight = tirx.const(0, "int32")
        for i, c in enumerate(buffer.known_grid.plane_weights):
            weight = tirx.Select(j.var == i, tirx.const(c, "int32"), weight)
        return te.sum(popcount(packed[y, x, j, w, lane]).astype("int32") * weight, axis=[j, w, lane])

    return te.compute((height, width), total, name=name)


def sum_codes(codes, buffer: Buffer, name: str):
    """int32 [H, W]: Σ_c level."""
    height, width, *channels = (int(n) for n in codes.shape)
    flat = len(channels) == 1
    groups, vectors, lanes = (channels[0] // 16, 1, 16) if flat else channels
    g, k = te.reduce_axis((0, groups), "g"), te.reduce_axis((0, vectors), "k")
    lane = te.reduce_axis((0, lanes), "lane")
    at = (lambda y, x: (y, x, g * 16 + lane)) if flat else (lambda y, x: (y, x, g, k, lane))
    return te.compute(
        (height, width), lambda y, x: te.sum(codes[at(y, x)].astype("int32"), axis=[g, k, lane]), name=name
    )
