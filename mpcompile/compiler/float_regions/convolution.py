"""Convolutions of one or two spatial axes.

Where a group has several filters, windows are copied into columns of a matrix (im2col), some lines of the result at a time,
and multiplied by the filters in register tiles. Where it has fewer than LEAST_FILTERS (depthwise), vectors of pixels are
summed over the taps where they lie.

The input is copied first into lines with zeros around, where there are any, columns of different remainders by the stride
apart, so that the pixels that a tap meets lie one behind the other:

    stride 2:  0 a b c d e f 0   →   0 b d f | a c e 0
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.epilogues import Epilogue
from mpcompile.compiler.float_regions.loops import Array, Index, Loops
from mpcompile.compiler.float_regions.product import Tiling, multiply, tiling
from mpcompile.kernels.epilogue import f32
from mpcompile.kernels.tvm_names import PrimFunc, tirx

Shape = tuple[int, ...]
LEAST_FILTERS = 4
DEEP = 4
"""Vectors of a depthwise convolution at once."""
TOGETHER = 128 * 1024
"""Bytes of the copied windows of some lines, about."""


@dataclass(frozen=True)
class Window:
    """What a convolution of maps (channels, height, width) does; one of one spatial axis has a height of 1. `pads` are
    top, left, bottom, right."""

    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        size = (self.height + self.pads[0] + self.pads[2], self.width + self.pads[1] + self.pads[3])
        taps = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations)]
        return (size[0] - taps[0]) // self.strides[0] + 1, (size[1] - taps[1]) // self.strides[1] + 1

    @property
    def depth(self) -> int:
        """Products of a sum."""
        return self.channels // self.groups * prod(self.kernel)

    @property
    def products(self) -> int:
        return self.filters * prod(self.out) * self.depth

    @property
    def pixels(self) -> int:
        """Of the input, all channels."""
        return self.channels * self.height * self.width

    @property
    def as_it_lies(self) -> bool:
        """Whether no copy of the input is needed."""
        return not any(self.pads) and self.strides[1] == 1


def convolution(window: Window, shapes: list[Shape], result: Shape, vectors: Vectors, epilogue: Epilogue) -> PrimFunc:
    """x, filters → the maps of each sample; `shapes` and `result` are those of the tensors."""
    do = Loops(vectors.lanes)
    samples = result[0]

    def body(x: Array, w: Array, *others: Array) -> None:
        *besides, y = others
        with do.loop(samples) as sample:

            def put(filter: Index, place: Index, count: int, value: Callable[[Index], Any]) -> None:
                first = (sample * window.filters + filter) * prod(window.out) + place
                index = [sample, filter, *[None] * (len(result) - 2)]
                do.fill(
                    y,
                    first,
                    count,
                    lambda i: epilogue.of(value(i), first + i, index, besides),
                    DEEP * do.width,
                )

            lines = _lines(do, window, x, sample * window.pixels)
            if window.filters // window.groups < LEAST_FILTERS:
                _by_taps(do, window, lines, w, put)
            else:
                _by_columns(do, window, vectors, lines, w, put)

    return do.function([*shapes, *epilogue.shapes, result], body)


Lines = Callable[[Index, Index, Index], tuple[Array, Index]]
"""(channel, line of the padded map, tap) → (array, place): the pixels that the tap of that column meets for the result's
columns 0, 1, … are there and behind it."""


Put = Callable[[Index, Index, int, Callable[[Index], Any]], None]
"""(filter, pixel of the result, count, value of the i-th): stores so many pixels from there on."""


def _lines(do: Loops, window: Window, x: Array, x0: Index) -> Lines:
    height, width = window.height, window.width
    if window.as_it_lies:
        return lambda c, line, tap: (x, x0 + (c * height + line) * width + tap * window.dilations[1])
    top, left, bottom, right = window.pads
    apart, tall = window.strides[1], height + top + bottom
    wide = -(-(left + width + right) // apart)
    padded = do.local(window.channels * tall * apart * wide)
    with do.shared(window.channels, 4 * window.pixels) as c:
        at = c * (tall * apart * wide)
        if top:
            do.fill(padded, at, top * apart * wide, lambda i: f32(0.0))
        if bottom:
            do.fill(padded, at + (top + height) * apart * wide, bottom * apart * wide, lambda i: f32(0.0))
        with do.loop(height) as line:
            for phase in range(apart):
                to = at + ((line + top) * apart + phase) * wide
                first = max(0, -(-(left - phase) // apart))  # the first place of this phase that is no padding
                count = max(0, min(wide - first, -(-(left + width - phase) // apart) - first))
                source = x0 + (c * height + line) * width + first * apart + phase - left
                do.fill(padded, to, first, lambda i: f32(0.0))
                if apart == 1:
                    do.fill(padded, to + first, count, lambda i, source=source: x[source + i])
                else:  # LLVM makes vectors of it
                    with do.loop(count) as i:
                        do.store(padded, to + first + i, x[source + i * apart])
                do.fill(padded, to + first + count, wide - first - count, lambda i: f32(0.0))

    def place(c: Index, line: Index, tap: Index) -> tuple[Array, Index]:
        column = tap * window.dilations[1]
        return padded, ((c * tall + line) * apart + column % apart) * wide + column // apart

    return place


def _by_taps(do: Loops, window: Window, lines: Lines, w: Array, put: Put) -> None:
    (tall, wide), (high, broad) = window.out, window.kernel
    inputs, share = window.channels // window.groups, window.filters // window.groups
    with do.shared(window.filters, window.products) as f, do.loop(tall) as line:

        def some(at: Index, lanes: int) -> None:
            total = do.local(lanes)
            do.fill(total, 0, lanes, lambda i: f32(0.0), lanes)
            with do.loop(inputs) as c:
                channel = f // share * inputs + c
                for ky in range(high):
                    for kx in range(broad):
                        source, first = lines(channel, line * window.strides[0] + ky * window.dilations[0], kx)
                        factor = w[((f * inputs + c) * high + ky) * broad + kx]
                        with do.lanes(lanes) as lane:
                            do.store(total, lane, total[lane] + factor * source[first + at + lane])
            put(f, line * wide + at, lanes, lambda i: total[i])

        do.each(wide, DEEP * do.width, some)


def _by_columns(do: Loops, window: Window, vectors: Vectors, lines: Lines, w: Array, put: Put) -> None:
    (tall, wide), depth = window.out, window.depth
    share, inputs = window.filters // window.groups, window.channels // window.groups
    together = min(tall, max(1, TOGETHER // (4 * depth * wide), -(-8 * vectors.lanes // wide)))
    together = -(-tall // -(-tall // together))  # so that all turns have about as many
    columns = together * wide
    tile = tiling(share, columns, vectors)
    held = [(i * tile.wide, tile.vectors) for i in range(tile.panels)]
    held += [(tile.panels * tile.wide, tile.last)] if tile.last else []
    turns = -(-tall // together)
    with do.shared(window.groups * turns, window.products) as turn:
        group, number = (turn // turns, turn % turns) if window.groups > 1 else (0, turn)
        # The last lines are computed twice where a turn would go beyond them.
        top = tirx.min(number * together, tirx.const(tall - together, "int32")) if turns > 1 else 0
        for first, count in held:
            copied = _columns(do, window, tile, lines, group * inputs, top, first, count, columns)
            across = count * tile.lanes

            def finish(row: Index, sums: list[Array], first: int = first, top: Index = top) -> None:
                for v, array in enumerate(sums):
                    at = first + v * tile.lanes
                    there = min(tile.lanes, columns - at)
                    put(group * share + row, top * wide + at, there, lambda i, array=array: array[i])

            multiply(
                do,
                tile,
                depth,
                lambda row, k: w[(group * share + row) * depth + k],
                lambda k, at, copied=copied, across=across: copied[k * across + at],
                count,
                None,
                finish,
            )


def _columns(
    do: Loops,
    window: Window,
    tile: Tiling,
    lines: Lines,
    channel: Index,
    top: Index,
    first: int,
    count: int,
    columns: int,
) -> Array:
    """(depth, count·lanes): the windows of the pixels from `first` on, of lines of the result from `top` on."""
    wide, (high, broad) = window.out[1], window.kernel
    across, inputs = count * tile.lanes, window.channels // window.groups
    copied = do.local(window.depth * across)
    end = min(first + across, columns)
    with do.loop(inputs) as c, do.loop(high) as ky:
        for kx in range(broad):
            to = ((c * high + ky) * broad + kx) * across
            for line in range(first // wide, -(-end // wide)):
                begin, stop = max(first, line * wide), min(end, (line + 1) * wide)
                over = (top + line) * window.strides[0] + ky * window.dilations[0]
                source, at = lines(channel + c, over, kx)
                at = at + (begin - line * wide)
                do.fill(copied, to + begin - first, stop - begin, lambda i: source[at + i])
            do.fill(copied, to + end - first, across - (end - first), lambda i: f32(0.0))
    return copied
