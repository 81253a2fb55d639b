"""The loops of `schoolbook` within a tile, on any CPU: for kh, kw, channel: multiply-add of 32-bit lanes."""

from __future__ import annotations

import math

from mpcompile.kernels.stages import PartStages
from mpcompile.schedules.inner import InnerLoops
from mpcompile.schedules.loops import LayerLoops
from tests.families.schoolbook import SchoolbookSpec


class SchoolbookLoops(InnerLoops[SchoolbookSpec, LayerLoops]):
    def lanes(self, part: SchoolbookSpec) -> int:
        return next(n for n in (8, 4) if part.weight_shape[3] % n == 0)

    def cost(self, part: SchoolbookSpec, pixels: int, block: int, registers: int, vector_bits: int) -> float | None:
        vectors = block // self.lanes(part)
        return 1 / pixels + 1 / vectors if pixels * vectors + vectors + 1 <= registers else None

    def steps(self, part: SchoolbookSpec, padded: int) -> float:
        return math.prod(part.weight_shape[:3]) * padded / self.lanes(part)

    def taps(self, part: SchoolbookSpec) -> tuple[int, int, int]:
        return part.weight_shape[0], part.weight_shape[1], part.weight_shape[2]

    def apply(self, layer: LayerLoops, part: PartStages[SchoolbookSpec]) -> None:
        s, name = layer.s, part.reduction
        y, x, o, kh, kw, c = s.get_loops(s.get_sblock(name))[-6:]
        taps = layer.taps(kh, kw, c)
        s.reorder(*taps, y, x, o)
        for loop in (y, x):
            s.unroll(loop)
        layer.vectorize_channels(o, self.lanes(part.spec))
        s.decompose_reduction(name, taps[0])
        layer.unroll(taps)
