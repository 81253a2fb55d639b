"""The loops of a fused layer on every architecture, around the inner loops of its own.

    for y, row of pixels                               rows of one output line: `row` pixels
      window sums of the row; its input widened, where the dot-product step takes 16 bits
      for group of output channels                     `channels`, those of one word where the output is packed
        for tile of `pixels` × `block` channels        accumulators in registers
          for kh, kw, word: AND, POPCNT, ADD           (or a dot-product step)
          shift, add, correct → int32 tile in L1
        for pixel: epilogue → levels → pack, store
      pixel sums of the row

With `lines` > 1 the order is: for each so many output lines, for each group, for each row of pixels. A group's weights
are then read once for all of them (cache blocking), and what the groups share is computed for all lines at once.

Threads share one of the outer loops, see `sharing`. What carries over from `P` to the epilogue is a tile of int32 in L1;
no int32 tensor of a layer is ever in memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mpcompile.kernels.spec import IMAGE_CHANNELS, ContractSpec, LayerSpec, PartSpec
from mpcompile.kernels.stages import PartStages, Stages, StoredStage
from mpcompile.kernels.tvm_names import Schedule
from mpcompile.schedules.inner import loops_of
from mpcompile.schedules.tile import Tile, divisors

WORTH_A_THREAD = 20_000
"""Cycles of a layer below which handing half of it to another thread costs more than it saves: that takes about 4000, and
the estimates are rough."""
WEIGHT_BYTES = 16
"""Of weights that a core reads in a cycle from its last cache, where a network's weights are."""
THREADS = (2, 3, 4)
EVEN = 0.88
"""How busy so many threads are kept, at least, by a loop that they share: 4, 6 or 8 iterations do, 3, 5 or 7 do not."""


def short_epilogue(architecture: str, spec: LayerSpec) -> bool:
    """Whether the epilogue of a register tile may be unrolled: one contraction, no planes to pack from what it gives."""
    parts = spec.parts
    return (
        len(parts) == 1
        and loops_of(architecture, parts[0]).sums_stay(parts[0])
        and all(b.format in ("codes", "float") for o in spec.outputs for b in o.buffers)
    )


@dataclass
class LayerLoops(ABC):
    """The loops of one layer. What is within a tile is looked up by `architecture` and spec (inner.py)."""

    architecture: ClassVar[str]
    s: Schedule
    stages: Stages
    spec: LayerSpec
    tile: Tile

    @property
    def channels(self) -> int:
        """Channels of a group."""
        return self.spec.padded // self.spec.blocking[0]

    def lanes(self, part: PartSpec) -> int:
        """Output channels of a vector of its inner step."""
        return loops_of(self.architecture, part).lanes(part)

    @abstractmethod
    def cycles(self) -> float:
        """Roughly what the layer takes on one core."""

    @abstractmethod
    def epilogue_lanes(self) -> int:
        """Lanes of int32 and float32 vectors in the epilogue."""

    def work(self, stored: float) -> float:
        """For each output pixel, vectors of all parts' inner steps, and what storing takes in addition."""
        total = stored
        for part in self.spec.parts:
            total += loops_of(self.architecture, part).steps(part, self.spec.padded)
        return total

    def apply(self):
        s, tile = self.s, self.tile
        lines, axis = self.sharing()
        y, x, group, vector, lane = s.get_loops(s.get_sblock("value"))
        x, pixel = s.split(x, [None, tile.row])
        if lines > 1:
            y, line = s.split(y, [None, lines])
            s.reorder(y, group, line, x, pixel, vector, lane)
        else:
            s.reorder(y, x, group, pixel, vector, lane)
        s.set_scope("value", 0, "local")
        if axis == "rows":
            x = s.fuse(y, x)
        if axis:  # first of all: later, decomposed reductions have two writers, which `parallel` does not accept
            s.parallel({"lines": y, "rows": x, "groups": group}[axis])
        self.shared, self.inner, self.pixel = (y, x, pixel) if lines > 1 else (x, group, pixel)
        self.group = group
        if self.spec.padded == IMAGE_CHANNELS and not self.stages.parts:
            self.image(pixel, vector, lane)
        else:
            self.vectorize_channels(s.fuse(vector, lane), self.epilogue_lanes())
        for name in self.stages.levels:
            s.set_scope(name, 0, "local")
            self.after_root(name, self.epilogue_lanes())
        for stage in self.stages.stored:
            self.store(stage)
        for name in self.stages.pools:
            self.pool(name)
        parts = iter(self.stages.parts)
        contracts = [t for t in self.spec.terms if isinstance(t, ContractSpec)]
        for name, term in zip(self.stages.accumulators, contracts):
            self.contract(name, [next(parts) for _ in term.parts])
        for name in self.stages.windows:
            s.set_scope(name, 0, "local")
            s.compute_at(name, self.shared, preserve_unit_loops=True)
            loops = s.get_loops(s.get_sblock(name))
            s.reorder(*loops[-2:], *loops[-4:-2])
            s.decompose_reduction(name, loops[-2])
        if tile.row == tile.pixels and tile.block == self.channels and short_epilogue(self.architecture, self.spec):
            s.unroll(self.pixel)  # the tile stays in registers on its way to the epilogue
        return s.mod["main"]

    def image(self, pixel, vector, lane):
        """An image of few channels: lanes are pixels, not channels.

        Storing them interleaved is left to LLVM, which is good at it.
        """
        s = self.s
        s.reorder(vector, lane, pixel)
        s.transform_layout("value", ("write", 0), lambda y, x, group, vector, lane: (y, group, vector, lane, x))
        s.unroll(lane)
        lanes = max(divisors(self.tile.row, 16))
        if lanes > 1:
            s.vectorize(s.split(pixel, [None, lanes])[1])
        self.pixel = self.inner

    def vectorize_channels(self, channel, lanes: int):
        if self.s.get(channel).extent.value % lanes:
            return
        vectors, lane = self.s.split(channel, [None, lanes])
        self.s.unroll(vectors)
        self.s.vectorize(lane)

    def after_root(self, name: str, lanes: int):
        """Per pixel, under the root's loops; the innermost axes are a group's vectors and lanes, or channels."""
        s = self.s
        block = s.get_sblock(name)
        flat = len(s.get(block).iter_vars) == 3
        s.reverse_compute_at(name, self.pixel, preserve_unit_loops=True)
        loops = s.get_loops(block)
        self.vectorize_channels(loops[-1] if flat else s.fuse(*loops[-2:]), lanes)

    def store(self, stage: StoredStage):
        s, name, form, bits = self.s, stage.name, stage.format, stage.bits
        if self.pixel is self.inner and form == "codes":
            s.reverse_compute_at(name, self.inner, preserve_unit_loops=True)
            s.unroll(s.get_loops(s.get_sblock(name))[-1])
            return
        if form == "sums":
            s.reverse_compute_at(name, self.shared, preserve_unit_loops=True)
            loops = s.get_loops(s.get_sblock(name))
            s.unroll(loops[-3])  # planes, or groups of channels
            s.decompose_reduction(name, loops[-3])
        elif form == "planes":
            s.set_scope(bits, 0, "local")
            s.reverse_compute_at(bits, self.pixel, preserve_unit_loops=True)
            plane, word, lane, k = s.get_loops(s.get_sblock(bits))[-4:]
            s.reorder(plane, word, k, lane)
            for loop in (plane, word, k):
                s.unroll(loop)
            s.vectorize(lane)
            s.decompose_reduction(bits, k)
            s.reverse_compute_at(name, self.pixel, preserve_unit_loops=True)
            plane, word, lane = s.get_loops(s.get_sblock(name))[-3:]
            s.unroll(plane)
            s.unroll(word)
            s.vectorize(lane)
        elif form == "plain":
            s.reverse_compute_at(name, self.inner, preserve_unit_loops=True)
        elif form == "channels_last":
            s.reverse_compute_at(name, self.pixel, preserve_unit_loops=True)
            if self.pixel is not self.inner:
                self.vectorize_channels(s.get_loops(s.get_sblock(name))[-1], self.epilogue_lanes())
        else:
            self.after_root(name, self.epilogue_lanes())

    def pool(self, name: str):
        s = self.s
        s.set_scope(name, 0, "local")
        s.compute_at(name, self.inner, preserve_unit_loops=True)
        y, x, o, kh, kw = s.get_loops(s.get_sblock(name))[-5:]
        s.reorder(y, x, kh, kw, o)
        self.vectorize_channels(o, self.epilogue_lanes())
        s.decompose_reduction(name, kh)

    # -- contractions ----------------------------------------------------------------------------
    def contract(self, name: str, parts: list[PartStages]):
        s, tile = self.s, self.tile
        s.set_scope(name, 0, "local")
        s.compute_at(name, self.inner, preserve_unit_loops=True)
        y, x, o = s.get_loops(s.get_sblock(name))[-3:]
        x, pixel = s.split(x, [None, tile.pixels])
        block, channel = s.split(o, [None, tile.block])
        s.reorder(y, x, block, pixel, channel)
        s.unroll(pixel)
        self.vectorize_channels(channel, min(16, *(self.lanes(p.spec) for p in parts)))
        for part in parts:
            loops = loops_of(self.architecture, part.spec)
            if loops.in_tiles:
                s.set_scope(part.reduction, 0, "local")
                s.compute_at(part.reduction, block, preserve_unit_loops=True)
            loops.apply(self, part)

    def taps(self, kh, kw, word) -> list:
        """The reduction's loops in the tile's order."""
        return [word, kh, kw] if self.tile.words_first else [kh, kw, word]

    def unroll(self, taps: list):
        for loop in taps[len(taps) - min(self.tile.unroll, len(taps)) :]:
            self.s.unroll(loop)

    # -- threads ---------------------------------------------------------------------------------
    def sharing(self) -> tuple[int, str]:
        """How many output lines a group serves, and the loop that threads share, "" where that does not pay.

        Where the tile leaves the loop open, it is the first that keeps threads evenly busy: chunks of the tile's lines,
        groups that serve all lines, rows of pixels, chunks of fewer lines; or the one that comes nearest to it. Groups
        that serve one line are shared only where there is one: pixel sums need all of them.
        """
        tile, (_, height, width) = self.tile, self.spec.shape
        reads = sum(math.prod(p.weight_shape) * np.dtype(p.weight_dtype).itemsize for p in self.spec.parts)
        if max(self.cycles(), reads / WEIGHT_BYTES) < WORTH_A_THREAD:
            return tile.lines, ""
        if tile.parallel:
            return tile.lines, tile.parallel
        sums = any(stage.format == "sums" for stage in self.stages.stored)
        groups, rows = self.spec.blocking[0], width // tile.row
        found = [(height // tile.lines, (tile.lines, "lines"))]
        if height > 1 or (rows == 1 and not sums):
            found.append((groups, (height, "groups")))
        if tile.lines == 1:
            found.append((height * rows, (1, "rows")))
        found += [(height // n, (n, "lines")) for n in reversed(divisors(tile.lines, tile.lines - 1))]
        step = max((loops_of(self.architecture, p).line_step(p) for p in self.spec.parts), default=1)
        found = [choice for choice in found if choice[1][0] % step == 0 or choice[1][0] == height]
        even = [choice for iterations, choice in found if evenness(iterations) >= EVEN]
        return even[0] if even else max(found, key=lambda one: evenness(one[0]))[1]


def evenness(iterations: int) -> float:
    """The share of their time that threads work, in the mean of some numbers of threads."""
    return sum(iterations / (n * -(-iterations // n)) for n in THREADS) / len(THREADS)
