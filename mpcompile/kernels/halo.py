"""The outputs of a kernel as they are stored: whole buffers with halos, in the shapes of `formats.py`.

The definition computes interiors, with channels as [group, vector, lane]. Here indices shift by the halo, channels
become one axis, and loops that fill the halo are put before the rest. They run every time: the memory of an activation
is used again by others, so a halo that was right once is not right for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tvm

from mpcompile.ir.formats import Buffer, halo_level, halo_pattern
from mpcompile.ir.planes import per_word, word_bytes
from mpcompile.kernels.tvm_names import buffer_of, prepend_to_root, replace_buffer, tirx

Fill = Callable[[Any, Buffer], list]
"""(the whole buffer, what it is) → statements that fill its halo."""


def serial(whole, buffer: Buffer) -> list:
    """Loops that fill the top rows, the bottom rows, and the two sides of the rows between."""
    top, left, bottom, right = buffer.halo
    _, height, width = buffer.shape
    areas = [
        (0, top, 0, left + width + right),
        (top + height, bottom, 0, left + width + right),
        (top, height, 0, left),
        (top, height, left + width, right),
    ]
    return [_fill(whole, buffer, *area) for area in areas if area[1] and area[3]]


def by_threads(whole, buffer: Buffer, threads: int = 256) -> list:
    """One kernel of blocks of `threads`, which looks at each element of the whole buffer and fills it where it is of the
    halo: a launch costs more than to look."""
    shape = buffer.buffer_shape
    if not any(buffer.halo):
        return []
    top, left, _, _ = buffer.halo
    _, height, width = buffer.shape
    size = math.prod(shape)
    block, thread = tirx.Var("blockIdx.x", "int32"), tirx.Var("threadIdx.x", "int32")
    rest, index = block * threads + thread, []
    for extent in reversed(shape):
        index.insert(0, rest % extent)
        rest = rest // extent
    y, x, *inner = index
    outside = tirx.any(y < top, y >= top + height, x < left, x >= left + width)
    within = tirx.all(block * threads + thread < size, outside)
    body = tirx.IfThenElse(within, tirx.BufferStore(whole, _value(buffer, inner), index), None)
    for var, extent, tag in ((thread, threads, "threadIdx.x"), (block, -(-size // threads), "blockIdx.x")):
        bound = tirx.IterVar(
            tvm.ir.Range(tirx.const(0, "int32"), tirx.const(extent, "int32")), var, tirx.IterVar.ThreadIndex, tag
        )
        body = tirx.For(var, 0, extent, tirx.ForKind.THREAD_BINDING, body, thread_binding=bound)
    return [body]


def _fill(whole, buffer: Buffer, y0: int, rows: int, x0: int, columns: int):
    extents = [rows, columns, *buffer.buffer_shape[2:]]
    loops = [tirx.Var(f"h{i}", "int32") for i in range(len(extents))]
    body = tirx.BufferStore(whole, _value(buffer, loops[2:]), [loops[0] + y0, loops[1] + x0, *loops[2:]])
    for var, extent in reversed(list(zip(loops, extents))):
        body = tirx.For(var, 0, extent, tirx.ForKind.SERIAL, body)
    return body


def store_whole(func, first: int, outputs: list[Buffer], fill: Fill):
    """`func` with its parameters from `first` on replaced by whole buffers, halos filled by loops that `fill` makes."""
    fills = []
    for i, buffer in enumerate(outputs):
        interior = buffer_of(func, first + i)
        shape = [int(n) for n in interior.shape]
        if tuple(shape) == buffer.buffer_shape:
            continue
        whole = tirx.decl_buffer(buffer.buffer_shape, buffer.dtype, interior.name)
        top, left, _, _ = buffer.halo

        def place(index, top=top, left=left, inner=shape[2:], rank=len(buffer.buffer_shape)):
            y, x, *rest = index
            if len(rest) + 2 > rank:  # [group, vector, lane] → channel
                rest = [(rest[0] * inner[1] + rest[1]) * inner[2] + rest[2]]
            return [y + top, x + left, *rest]

        func = replace_buffer(func, first + i, whole, place)
        fills += fill(whole, buffer)
    return prepend_to_root(func, fills) if fills else func


def _value(buffer: Buffer, index):
    """What an element of the halo holds; `index` is its place after y and x."""
    channels, grid = buffer.shape[0], buffer.known_grid
    if buffer.format == "sums":
        of_one = halo_level(grid) if buffer.beside == "codes" else -grid.offset if grid.has_zero else 0
        return tirx.const(channels * of_one, "int32")
    if buffer.format == "codes":
        (c,) = index
        return tirx.Select(c < channels, tirx.const(halo_level(grid), "uint8"), tirx.const(0, "uint8"))
    plane, word, lane = index
    byte = tirx.const(0, "int32")
    share, lanes = per_word(channels), word_bytes(channels)
    for k in range(share // lanes):  # the channels that the byte has
        byte = byte | tirx.Select(
            word * share + lanes * k + lane < channels, tirx.const(1 << k, "int32"), tirx.const(0, "int32")
        )
    one = tirx.const(0, "int32")
    for i in range(grid.planes):
        if halo_pattern(grid) >> i & 1:
            one = tirx.Select(plane == i, tirx.const(-1, "int32"), one)
    return (byte & one).astype("uint8")
