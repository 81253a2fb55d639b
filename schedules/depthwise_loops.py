"""The loops of `depthwise` within a tile, on every CPU: for kh, kw: multiply-add of 32-bit lanes."""

from __future__ import annotations

from mpcompile.kernels.families.depthwise import DepthwiseSpec
from mpcompile.kernels.stages import PartStages
from mpcompile.schedules.inner import InnerLoops
from mpcompile.schedules.loops import LayerLoops


class DepthwiseLoops(InnerLoops[DepthwiseSpec, LayerLoops]):
    """An architecture adds the lanes and what a tile costs."""

    def taps(self, part: DepthwiseSpec) -> tuple[int, int, int]:
        return *part.kernel, 1

    def sums_stay(self, part: DepthwiseSpec) -> bool:
        return True

    def apply(self, layer: LayerLoops, part: PartStages[DepthwiseSpec]) -> None:
        s, name = layer.s, part.reduction
        y, x, o, kh, kw = s.get_loops(s.get_sblock(name))[-5:]
        s.reorder(kh, kw, y, x, o)
        for loop in (y, x):
            s.unroll(loop)
        layer.vectorize_channels(o, self.lanes(part.spec))
        s.decompose_reduction(name, kh)
        layer.unroll([kh, kw])
