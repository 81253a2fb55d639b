"""What a schedule decides, on every architecture: a tile. Its hand-set default, by the registers that it needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from mpcompile.kernels.overlap import may_overlap, widened
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.schedules.inner import InnerLoops, loops_of


@dataclass(frozen=True)
class Tile:
    """What a schedule decides. No decision changes a byte of what a layer writes.

    row: pixels between two epilogues, a multiple of `pixels` that divides the width, or of which the last overlaps
    (kernels/overlap.py).
    pixels × block channels: the register tile; `block` divides a group's channels.
    lines: output lines that a group's weights serve before the next group's turn; divides the height.
    unroll: how many of the innermost reduction loops are unrolled, of (kh, kw, word) in their order.
    words_first: the loop over words (or dot-product steps) outside of kh and kw, not inside.
    apart: a popcount's slots one after another, each with fewer accumulators, not together.
    parallel: the loop that threads share: "lines", "rows" or "groups"; "" where the shape decides.
    """

    row: int
    pixels: int
    block: int
    lines: int = 1
    unroll: int = 0
    words_first: bool = False
    apart: bool = False
    parallel: str = ""

    def to_json(self) -> dict:
        return asdict(self)

    @staticmethod
    def from_json(d: dict) -> Tile:
        """Raises TypeError or ValueError where `d` is no tile."""
        tile = Tile(**d)
        for name, kind in (
            ("row", int),
            ("pixels", int),
            ("block", int),
            ("lines", int),
            ("unroll", int),
            ("words_first", bool),
            ("apart", bool),
            ("parallel", str),
        ):
            if type(getattr(tile, name)) is not kind:
                raise ValueError(f"{name} must be {kind.__name__}, not {getattr(tile, name)!r}")
        return tile


def divisors(n: int, most: int) -> list[int]:
    return [d for d in range(1, min(n, most) + 1) if n % d == 0]


FEW_PIXELS = 4
"""Of a register tile: where a line of one map has no divisor of so many, or more, its last tile overlaps the one before."""
MOST_TWICE = 1.04
"""Pixels that are computed then, of those that there are."""


def pixels_of(spec: LayerSpec, most: int) -> list[int]:
    """Pixels that a tile may have: divisors of the line; others where those are few, and few pixels are computed twice."""
    width = spec.shape[2]
    found = divisors(width, most)
    if max(found) >= FEW_PIXELS or not may_overlap(spec):
        return found
    return found + [n for n in range(FEW_PIXELS, most + 1) if -(-width // n) * n <= MOST_TWICE * width]


def evened(spec: LayerSpec, tile: Tile) -> LayerSpec:
    """The layer with a line of whole rows of the tile."""
    width = -(-spec.shape[2] // tile.row) * tile.row
    return spec if width == spec.shape[2] else widened(spec, width)


def register_tile(
    spec: LayerSpec, lanes: int, most: int, cost: Callable[[PartSpec, int, int], float | None]
) -> tuple[int, int]:
    """(pixels, block) of the cheapest register tile, the wider of two that cost the same.

    `cost` of a part at so many pixels and channels, None where it does not fit the registers; each part of a layer
    counts as much as it has products. `most`: pixels at the most.
    """
    found, work = [], [math.prod(p.kernel) * p.data.shape[0] / p.groups for p in spec.parts]
    for pixels in pixels_of(spec, most):
        for blocks in divisors(spec.padded // spec.blocking[0] // lanes, 8):
            costs = [c for p in spec.parts if (c := cost(p, pixels, blocks * lanes)) is not None]
            if len(costs) == len(spec.parts):
                found.append((sum(c * w for c, w in zip(costs, work)) / sum(work), pixels, blocks * lanes))
    return min(found, key=lambda one: one[:2])[1:] if found else (1, lanes)


def tile_without_contraction(spec: LayerSpec, image: bool) -> Tile:
    """Of a layer that only moves, pools or quantizes; `image`: its lanes are pixels."""
    row = divisors(spec.shape[2], 32 if image else 16)[-1]
    return Tile(row, row, spec.padded // spec.blocking[0])


def row_of(width: int, pixels: int, longest: int = 16) -> int:
    """The longest row of whole register tiles that divides the width; one tile where none does."""
    if width % pixels:
        return pixels
    return max(d for d in divisors(width, max(longest, pixels)) if d % pixels == 0)


def default_lines(architecture: str, spec: LayerSpec) -> int:
    """Output lines that a group serves: what the parts' loops want, those first whose steps are of several lines."""
    by_loops: dict[InnerLoops, list[PartSpec]] = {}
    for part in spec.parts:
        by_loops.setdefault(loops_of(architecture, part), []).append(part)
    for loops in sorted(by_loops, key=lambda inner: -max(map(inner.line_step, by_loops[inner]))):
        lines = loops.lines(spec, by_loops[loops])
        if lines is not None:
            return lines
    return 1
