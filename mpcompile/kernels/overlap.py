"""Rows of pixels that no register tile divides: the last tile begins earlier, and computes some pixels twice.

A map of one line, of 197 pixels and tiles of 4, is scheduled as one of 200; then the last tile is put where it ends with
the line, at pixel 193. What a tile writes depends on its pixels alone, so pixels that come twice are written the same.

    tile 48:  192 193 194 195
    tile 49:      193 194 195 196
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Along
from mpcompile.kernels.spec import ChannelsLastSpec, ContractSpec, InterpolateSpec, LayerSpec, OutputSpec, ViewSpec
from mpcompile.kernels.tvm_names import PrimFunc, bindings_of, buffer_of, map_products, replace_buffer, tirx


def may_overlap(spec: LayerSpec) -> bool:
    """Whether tiles of the layer's one line may: nothing is added up in memory, nothing looked up by the pixel."""
    buffers = [b for o in spec.outputs for b in o.buffers]
    return (
        spec.shape[1] == 1
        and all(b.format in ("codes", "float", "plain") for b in buffers)
        and not any(isinstance(t, InterpolateSpec) for t in spec.terms)
        and all(isinstance(a, Along) for t in spec.terms if isinstance(t, ViewSpec) for a in t.along or ())
        and all(p.border is None for t in spec.terms if isinstance(t, ContractSpec) for p in t.parts)
    )


def widened(spec: LayerSpec, width: int) -> LayerSpec:
    """The layer with a line of so many pixels, of inputs that stay as they are."""
    channels, height, _ = spec.shape
    outputs = tuple(replace(o, buffers=tuple(_as_wide(b, o, width) for b in o.buffers)) for o in spec.outputs)
    return replace(spec, shape=(channels, height, width), outputs=outputs)


def overlapped(func: PrimFunc, spec: LayerSpec) -> PrimFunc:
    """The scheduled function of the widened layer, for the layer: tiles that end with its line."""
    width, (tile, row) = spec.shape[2], _tiles(func)
    func = map_products(func, tile, row, lambda first: tirx.min(first, width - row))
    first = len(func.params) - sum(len(o.buffers) for o in spec.outputs)
    for o in spec.outputs:
        for b in o.buffers:
            wide = buffer_of(func, first)
            shape = [int(n) for n in wide.shape]
            shape[_axis(b, o, len(shape))] = width
            func = replace_buffer(func, first, tirx.decl_buffer(shape, wide.dtype, wide.name), lambda index: index)
            first += 1
    return func


def _tiles(func: PrimFunc) -> tuple[Any, int]:
    """(number of a tile of the line, its pixels): in the pixel of the block that all outputs derive from."""
    at = bindings_of(func, "value")[1]
    while not isinstance(at, tirx.Mul):
        at = at.a
    return at.a, int(at.b)


def _as_wide(buffer: Buffer, output: OutputSpec, width: int) -> Buffer:
    shape = list(buffer.shape)
    shape[_axis(buffer, output, len(shape)) if buffer.format == "plain" else -1] = width
    return replace(buffer, shape=tuple(shape))


def _axis(buffer: Buffer, output: OutputSpec, rank: int) -> int:
    """Which axis of an output of a kernel are the pixels."""
    if buffer.format != "plain":
        return 1  # line, pixel, and what channels are stored as
    return rank - 2 if isinstance(output, ChannelsLastSpec) else rank - 1
