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

from dataclasses import dataclass
from itertools import product
from math import prod

from mpcompile.kernels.select import IMAGE_CHANNELS
from mpcompile.kernels.spec import LayerSpec, PartSpec
from mpcompile.schedules.tile import Tile, divisors, parts_of

UNROLLED_STEPS = 1024
"""Inner steps (of one vector each) of the largest unrolled body."""
MOST_PIXELS = 16
THREAD_CHUNKS = 4
"""Where a group serves several lines, so many lines or groups are left for threads to share, at least."""


@dataclass(frozen=True)
class Space:
    """`choices`: each field of Tile → its values. `registers` and `lanes`, of the vectors of each part's inner step,
    decide which combinations are tiles."""

    spec: LayerSpec
    registers: int
    lanes: tuple[int, ...]
    choices: dict[str, tuple]

    @staticmethod
    def of(architecture, spec: LayerSpec, threads: int = 1) -> Space:
        """The space of a layer; the loop that threads share is a decision only where there are several.

        `architecture` has `default_tile(spec)`, `registers` and `lanes(part)`.
        """
        default = architecture.default_tile(spec)
        _, _height, width = spec.shape
        channels = spec.padded // spec.blocking[0]
        parts = parts_of(spec)
        if not parts:
            image = spec.padded == IMAGE_CHANNELS
            rows = divisors(width, width)
            choices = {
                "row": rows,
                "pixels": (default.pixels,),
                "block": (default.block,),
                "lines": (1,) if image else _lines(spec),
                "parallel": _axes(threads),
            }
            return Space(spec, architecture.registers, (), _filled(choices))
        lanes = tuple(architecture.lanes(p) for p in parts)
        steps = [_taps(p) for p in parts]
        spatial, deep = any(kh * kw > 1 for kh, kw, _ in steps), any(step > 1 for *_, step in steps)
        choices = {
            "row": divisors(width, width),
            "pixels": divisors(width, MOST_PIXELS),
            "block": [max(lanes) * n for n in divisors(channels // max(lanes), 8)],
            "lines": _lines(spec),
            "unroll": (0, 1, 2, 3) if spatial else (0, 3),
            "words_first": (False, True) if spatial and deep else (False,),
            "apart": (False, True) if any(_merged_slots(p) > 1 for p in parts) else (False,),
            "parallel": _axes(threads),
        }
        return Space(spec, architecture.registers, lanes, _filled(choices))

    def holds(self, tile: Tile) -> bool:
        """Whether `tile` is a point of this space."""
        return all(getattr(tile, name) in values for name, values in self.choices.items()) and self._fits(tile)

    def tiles(self) -> list[Tile]:
        """All of them, in a fixed order."""
        names = list(self.choices)
        found = (Tile(**dict(zip(names, values))) for values in product(*self.choices.values()))
        return [tile for tile in found if self._fits(tile)]

    def _fits(self, tile: Tile) -> bool:
        parts = parts_of(self.spec)
        if tile.parallel == "rows" and tile.lines > 1:
            return False
        if tile.parallel == "groups" and tile.lines == 1 and _stores_sums(self.spec):
            return False
        if not parts:
            return True
        return tile.row % tile.pixels == 0 and all(map(self._holds, parts, self.lanes, [tile] * len(parts)))

    def _holds(self, part: PartSpec, lanes: int, tile: Tile) -> bool:
        if part.instr and part.instr.winograd and tile.lines % 2 and tile.lines != self.spec.shape[1]:
            return False  # its tiles are two lines high
        vectors = -(-tile.block // lanes)
        slots = 1 if tile.apart else _merged_slots(part)
        taps = _taps(part)
        unrolled = prod(taps[3 - tile.unroll :]) if tile.unroll else 1
        in_registers = tile.pixels * vectors * slots
        return in_registers <= self.registers and in_registers * unrolled <= UNROLLED_STEPS


def _filled(choices: dict) -> dict[str, tuple]:
    rest = {"unroll": (0,), "words_first": (False,), "apart": (False,)}
    return {name: tuple(values) for name, values in (rest | choices).items()}


def _axes(threads: int) -> tuple[str, ...]:
    return ("",) if threads == 1 else ("", "lines", "rows", "groups")


def _lines(spec: LayerSpec) -> tuple[int, ...]:
    """How many output lines a group may serve: those that leave threads enough to share."""
    _, height, _ = spec.shape
    shared = spec.blocking[0] >= THREAD_CHUNKS
    return tuple(n for n in divisors(height, height) if n == 1 or shared or height // n >= THREAD_CHUNKS)


def _stores_sums(spec: LayerSpec) -> bool:
    return any(b.format == "sums" for o in spec.outputs for b in o.buffers)


def _merged_slots(part: PartSpec) -> int:
    """Accumulators of one output where plane pairs are merged."""
    return len(part.slots.weights) if part.slots and part.slots.merged and not part.count else 1


def _taps(part: PartSpec) -> tuple[int, int, int]:
    """Extents of kh, kw and the loop over words, or dot-product steps."""
    if part.family == "depthwise":
        return *part.kernel, 1
    return *part.kernel, part.weight_shape[4 if part.count or part.lookup else 3]
