"""Products of matrices in register tiles, of any size: rows and columns that no tile divides have tiles of
their own.

    for each panel of columns              (threads share these, and what is around)
        copy the panel of b, so that its vectors lie one behind the other
        for each block of the depth        (as much of the panel as the first cache holds)
            for each tile of rows
                rows × vectors accumulators += a[row, k] · b[k, vector]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.loops import Array, Index, Loops
from mpcompile.kernels.epilogue import f32

MOST_ROWS, MOST_VECTORS = 8, 6
NEAR = 24 * 1024
"""Bytes of a panel's block, which is read again for each tile of rows: most of a first cache of 32 KiB."""
WORTH_COPYING = 8
"""Rows from which copying a panel of b pays: fewer read each of its vectors but once or twice."""
Read = Callable[[Index, Index], Any]
Store = Callable[[Index, Index, int, Callable[[Index], Any]], None]


@dataclass(frozen=True)
class Cut:
    """So many tiles of `size` from `first` on."""

    first: int
    turns: int
    size: int


@dataclass(frozen=True)
class Tiling:
    """Of rows × columns: `rows` cut into tiles of rows, the last one smaller; `vectors` of a panel, and `last` of the
    columns that remain, 0 where none do, the last vector perhaps in part."""

    rows: tuple[Cut, ...]
    lanes: int
    vectors: int
    panels: int
    last: int

    @property
    def wide(self) -> int:
        """Columns of a panel."""
        return self.lanes * self.vectors


def tiling(rows: int, columns: int, vectors: Vectors, whole: bool = False) -> Tiling:
    """The cheapest, by loads and products. `whole`: no panel is wider than all columns."""
    lanes = vectors.lanes
    while lanes > 1 and lanes > columns:
        lanes //= 2
    return _tiling(rows, columns, lanes, vectors.accumulators, whole)


@lru_cache
def _tiling(rows: int, columns: int, lanes: int, accumulators: int, whole: bool) -> Tiling:
    def cost(tile: Tiling) -> float:
        across = [(tile.panels, tile.vectors), *([(1, tile.last)] if tile.last else [])]
        return sum(
            cut.turns * panels * max(cut.size * v, cut.size + v, 4) + cut.turns * panels * (cut.size + v) / 8
            for cut in tile.rows
            for panels, v in across
        )

    def made(r: int, v: int) -> Tiling:
        whole, rest = divmod(rows, r)
        cuts = [Cut(0, whole, r)] if whole else []
        cuts += [Cut(whole * r, 1, rest)] if rest else []
        panels, left = divmod(columns, v * lanes)
        return Tiling(tuple(cuts), lanes, v, panels, -(-left // lanes))

    pairs = [(r, v) for r in range(1, MOST_ROWS + 1) for v in range(1, MOST_VECTORS + 1) if r * v <= accumulators]
    wide = columns // lanes if whole else -(-columns // lanes)
    pairs += [(1, v) for v in range(MOST_VECTORS + 1, accumulators + 1) if rows == 1 and v <= wide]
    return min((made(r, v) for r, v in pairs if r <= rows and v <= wide), key=cost)


def block_of(wide: int) -> int:
    """The depth of a block of a panel so wide."""
    return max(32, NEAR // (4 * wide))


def product(
    do: Loops,
    vectors: Vectors,
    size: tuple[int, int, int],
    a: Read,
    b: Read,
    begin: Read | None,
    store: Store,
    work: float,
) -> None:
    """`size`: rows, depth, columns. a(row, k), b(k, column): single values, those of b one behind the other along a row.
    begin(row, column): what is added to, None for 0. store(row, column, count, value): takes value(i), i below `count`, for
    the columns from there on; some columns may come twice. Threads share panels where there is so much work."""
    rows, depth, columns = size
    copied = rows >= WORTH_COPYING
    tile = tiling(rows, columns, vectors, whole=not copied)
    for first, held in panels(do, tile, work):
        wide = held * tile.lanes
        there = columns - first if isinstance(first, int) and first + wide > columns else wide
        if not copied and there < wide:
            first, there = columns - wide, wide  # some columns twice, so that no vector ends behind the matrix
        if copied:
            near = do.local(depth * wide)
            with do.loop(depth) as k:
                do.fill(near, k * wide, there, lambda i: b(k, first + i), tile.lanes)
                do.fill(near, k * wide + there, wide - there, lambda i: f32(0.0), tile.lanes)
            panel = lambda k, at, near=near, wide=wide: near[k * wide + at]
        else:
            panel = lambda k, at, first=first: b(k, first + at)

        def finish(row: Index, sums: list[Array], first: Index = first, there: int = there) -> None:
            for v, array in enumerate(sums):
                count = min(tile.lanes, there - v * tile.lanes)
                store(row, first + v * tile.lanes, count, lambda i, array=array: array[i])

        start = None if begin is None else lambda row, at, first=first: begin(row, first + at)
        multiply(do, tile, depth, a, panel, held, start, finish)


def panels(do: Loops, tile: Tiling, work: float) -> Iterator[tuple[Index, int]]:
    """(first column, vectors) of each panel, inside the loop over those alike, which threads share
    where there is so much work. What is written while the generator stands
    at one goes there."""
    if tile.panels:
        with do.shared(tile.panels, work) as panel:
            yield panel * tile.wide, tile.vectors
    if tile.last:
        yield tile.panels * tile.wide, tile.last


def multiply(
    do: Loops,
    tile: Tiling,
    depth: int,
    a: Read,
    panel: Read,
    vectors: int,
    begin: Read | None,
    finish: Callable[[Index, list[Array]], None],
) -> None:
    """One panel of columns, all rows.

    a(row, k), panel(k, column of the panel): single values. begin(row, column): what is added to, None for 0.
    finish(row, arrays): takes a finished row, an array for each vector.
    """
    lanes = tile.lanes
    wide, rows = vectors * lanes, sum(cut.turns * cut.size for cut in tile.rows)
    step = block_of(wide)
    blocks = -(-depth // step)
    start = begin or (lambda row, column: f32(0.0))
    if blocks == 1:
        _tiles(do, tile, vectors, 0, depth, a, panel, start, finish)
        return
    partial = do.local(rows * wide)
    with do.loop(rows) as row:
        do.fill(partial, row * wide, wide, lambda i: start(row, i), lanes)

    def kept(row: Index, column: Index) -> Any:
        return partial[row * wide + column]

    def keep(row: Index, sums: list[Array]) -> None:
        for v, array in enumerate(sums):
            do.fill(partial, row * wide + v * lanes, lanes, lambda i: array[i], lanes)

    with do.loop(blocks - 1) as block:
        _tiles(do, tile, vectors, block * step, step, a, panel, kept, keep)
    done = (blocks - 1) * step
    _tiles(do, tile, vectors, done, depth - done, a, panel, kept, finish)


def _tiles(
    do: Loops,
    tile: Tiling,
    vectors: int,
    first: Index,
    steps: int,
    a: Read,
    panel: Read,
    start: Read,
    finish: Callable[[Index, list[Array]], None],
) -> None:
    """Some of the depth, from `first` on, of each tile of rows."""
    for cut in tile.rows:
        with do.loop(cut.turns) as turn:
            row = turn * cut.size + cut.first
            sums = [[do.local(tile.lanes) for _ in range(vectors)] for _ in range(cut.size)]
            of = [(r, v, kept) for r, line in enumerate(sums) for v, kept in enumerate(line)]
            for r, v, kept in of:
                do.fill(kept, 0, tile.lanes, lambda i: start(row + r, v * tile.lanes + i), tile.lanes)
            with do.loop(steps) as k:
                for r, v, kept in of:
                    with do.lanes(tile.lanes) as lane:
                        product = a(row + r, first + k) * panel(first + k, v * tile.lanes + lane)
                        do.store(kept, lane, kept[lane] + product)
            for r, line in enumerate(sums):
                finish(row + r, line)
