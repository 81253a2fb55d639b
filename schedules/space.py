"""Every schedule of a layer that tuning may try: the values of each decision, and which of their combinations are tiles.

Spaces hold 10 to 10⁴ points. What cannot differ for a shape (the order of the taps of a 1×1 kernel, slots of one plane
pair) has one value, and what is known to be slow is left out: register tiles that cannot stay in registers, unrolled
bodies that leave the instruction cache. So is what cannot pay on the CPUs that were measured (Zen 4):

* tiles of the reduction (K) and prefetching: weights that the caches have lost cost a 3×3 layer of ResNet-18 1 to 2 %
  at the most (as many bytes read between two runs as its second-level cache holds, or sixteen times that), at any depth
  and bits, and that bounds what either could win; which weights stay near is decided by `lines`;
* the width of words: 64-bit lanes count 1.02 times as fast as 32-bit ones with as many accumulators, alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import log2, prod

from mpcompile.kernels.spec import IMAGE_CHANNELS, LayerSpec, PartSpec
from mpcompile.schedules.inner import InnerLoops, loops_of
from mpcompile.schedules.tile import Tile, divisors

UNROLLED_STEPS = 1024
"""Inner steps (of one vector each) of the largest unrolled body."""
MOST_PIXELS = 16
AXES = ("", "lines", "rows", "groups")
"""Loops that threads may share."""
THREAD_CHUNKS = 4
"""Where a group serves several lines, so many lines or groups are left for threads to share, at least."""


@dataclass(frozen=True)
class Space:
    """`choices`: each field of Tile → its values. `loops` of each part, the lanes of their vectors and `registers` decide
    which combinations are tiles."""

    spec: LayerSpec
    registers: int
    loops: tuple[InnerLoops, ...]
    choices: dict[str, tuple]

    @staticmethod
    def of(architecture: str, spec: LayerSpec, default: Tile, registers: int, threads: int = 1) -> Space:
        """The space of a layer that gets `default` when nothing was measured; the loop that threads share is a decision
        only where there are several."""
        _, _height, width = spec.shape
        channels = spec.padded // spec.blocking[0]
        parts = spec.parts
        if not parts:
            image = spec.padded == IMAGE_CHANNELS
            rows = divisors(width, width)
            choices = {
                "row": rows,
                "pixels": (default.pixels,),
                "block": (default.block,),
                "lines": (1,) if image else _lines(spec),
                "parallel": _axes(threads, default),
            }
            return Space(spec, registers, (), _filled(choices))
        loops = tuple(loops_of(architecture, p) for p in parts)
        lanes = [inner.lanes(p) for inner, p in zip(loops, parts)]
        steps = [inner.taps(p) for inner, p in zip(loops, parts)]
        lines = tuple(sorted({*_lines(spec), default.lines}))  # a family may want more of them at once
        spatial, deep = any(kh * kw > 1 for kh, kw, _ in steps), any(step > 1 for *_, step in steps)
        choices = {
            "row": sorted({*divisors(width, width), default.row}),
            "pixels": sorted({*divisors(width, MOST_PIXELS), default.pixels}),
            "block": [max(lanes) * n for n in divisors(channels // max(lanes), 8)],
            "lines": lines,
            "unroll": (0, 1, 2, 3) if spatial else (0, 3),
            "words_first": (False, True) if spatial and deep else (False,),
            "apart": (False, True) if any(inner.slots(p) > 1 for inner, p in zip(loops, parts)) else (False,),
            "parallel": _axes(threads, default),
        }
        return Space(spec, registers, loops, _filled(choices))

    def holds(self, tile: Tile) -> bool:
        """Whether `tile` is a point of this space."""
        return all(getattr(tile, name) in values for name, values in self.choices.items()) and self._fits(tile)

    def tiles(self) -> list[Tile]:
        """All of them, in a fixed order."""
        found = (self.tile(dict(zip(self.choices, values))) for values in product(*self.choices.values()))
        return [tile for tile in found if self._fits(tile)]

    def tile(self, decisions: Mapping[str, object]) -> Tile:
        """The tile of one value for each decision, whether or not it is a point."""
        return Tile.from_json(dict(decisions))

    def features(self, tile: Tile) -> list[float]:
        """What decides a tile's speed: its decisions, and the registers, loads, code and reuse that follow from them."""
        channels, height, width = self.spec.shape
        parts = self.spec.parts
        found = [log2(n) for n in (tile.row, tile.pixels, tile.block, tile.lines, channels, height, width)]
        found += [tile.unroll, tile.words_first, tile.apart, AXES.index(tile.parallel)]
        vectors = tile.block / max((inner.lanes(p) for inner, p in zip(self.loops, parts)), default=tile.block)
        slots = max((inner.slots(p) for inner, p in zip(self.loops, parts) if not tile.apart), default=1)
        taps = max((prod(p.kernel) for p in parts), default=1)
        depth = max((p.data.shape[0] for p in parts), default=1)
        weights = sum(prod(p.weight_shape) for p in parts) or 1
        registers = tile.pixels * vectors * slots
        return [
            *map(float, found),
            vectors,
            slots,
            registers,
            self.registers - registers,
            (tile.pixels + vectors) / (tile.pixels * vectors),
            log2(tile.row / tile.pixels),
            log2(height / tile.lines),
            log2(taps),
            log2(depth),
            log2(weights),
            len(parts),
            log2(tile.row * tile.lines),
        ]

    def _fits(self, tile: Tile) -> bool:
        parts = self.spec.parts
        if tile.parallel == "rows" and tile.lines > 1:
            return False
        if tile.parallel == "groups" and tile.lines == 1 and _stores_sums(self.spec):
            return False
        if not parts:
            return True
        if not _whole(self.spec, self.loops, tile.lines):
            return False
        rows = tile.row % tile.pixels == 0 and (self.spec.shape[2] % tile.row == 0 or tile.row == tile.pixels)
        return rows and all(self._holds(*one, tile) for one in zip(self.loops, parts))

    def _holds(self, loops: InnerLoops, part: PartSpec, tile: Tile) -> bool:
        vectors = -(-tile.block // loops.lanes(part))
        slots = 1 if tile.apart else loops.slots(part)
        taps = loops.taps(part)
        unrolled = prod(taps[3 - tile.unroll :]) if tile.unroll else 1
        in_registers = tile.pixels * vectors * slots
        return in_registers <= self.registers and in_registers * unrolled <= UNROLLED_STEPS


def _filled(choices: dict) -> dict[str, tuple]:
    rest = {"unroll": (0,), "words_first": (False,), "apart": (False,)}
    return {name: tuple(values) for name, values in (rest | choices).items()}


def _axes(threads: int, default: Tile) -> tuple[str, ...]:
    return (default.parallel,) if threads == 1 else AXES


def _lines(spec: LayerSpec) -> tuple[int, ...]:
    """How many output lines a group may serve: those that leave threads enough to share."""
    _, height, _ = spec.shape
    shared = spec.blocking[0] >= THREAD_CHUNKS
    return tuple(n for n in divisors(height, height) if n == 1 or shared or height // n >= THREAD_CHUNKS)


def _whole(spec: LayerSpec, loops: tuple[InnerLoops, ...], lines: int) -> bool:
    """Whether so many lines are whole steps of all parts."""
    return lines == spec.shape[1] or all(lines % inner.line_step(p) == 0 for inner, p in zip(loops, spec.parts))


def _stores_sums(spec: LayerSpec) -> bool:
    return any(b.format == "sums" for o in spec.outputs for b in o.buffers)
