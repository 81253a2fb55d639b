"""Loops of a reduction in two widths: a tile of narrow accumulators for a chunk of the reduction, then widened.

for chunk of kh, kw, step
  for kh, kw, step of the chunk: tile of `narrow` += step intrinsic          registers
  tile of `wide` += widen intrinsic                                          registers, or L1
"""

from __future__ import annotations

from mpcompile.kernels.families.dot import DotStages
from mpcompile.kernels.families.lookup import LookupStages
from mpcompile.kernels.families.popcount import PopcountBytesStages
from mpcompile.schedules.loops import LayerLoops


def dot(layer: LayerLoops, part: DotStages) -> None:
    """D[y, x, ob, lane] over (kho, kwo, co, half) of the narrow sums over (khi, kwi, ci, pair)."""
    y, x, ob, lane, kho, kwo, co, half = _loops(layer.s, part.reduction, 8)
    names, steps = (part.reduction, part.narrow), (part.spec.instr.intrin, part.spec.instr.widen)
    _two_widths(layer, *names, *steps, [], [kho, kwo, co], [y, x, ob], [lane, half])


def popcount(layer: LayerLoops, part: PopcountBytesStages, unrolled_pairs: int) -> None:
    """P[y, x, ob, i, j, lane] over (kho, kwo, so, byte) of the narrow sums over (khi, kwi, si); a plane pair after the
    other."""
    y, x, ob, i, j, lane, kho, kwo, so, byte = _loops(layer.s, part.reduction, 10)
    if len(part.spec.pairs) * len(part.spec.pairs[0]) <= unrolled_pairs:
        layer.s.unroll(i)
        layer.s.unroll(j)
    names, steps = (part.reduction, part.narrow), (part.spec.count.step, part.spec.count.widen)
    _two_widths(layer, *names, *steps, [i, j], [kho, kwo, so], [y, x, ob], [lane, byte])


def lookup(layer: LayerLoops, part: LookupStages) -> None:
    """L[y, x, ob, i, d, half, lane] over (kho, kwo, co) of the narrow sums over (khi, kwi, ci); a weight plane after the
    other."""
    y, x, ob, i, d, half, lane, kho, kwo, co = _loops(layer.s, part.reduction, 10)
    layer.s.unroll(i)
    layer.s.unroll(d)
    names, steps = (part.reduction, part.narrow), (part.spec.lookup.step, part.spec.lookup.widen)
    _two_widths(layer, *names, *steps, [i, d], [kho, kwo, co], [y, x, ob], [half, lane])


def _loops(s, name: str, count: int) -> list:
    return s.get_loops(s.get_sblock(name))[-count:]


def _two_widths(
    layer: LayerLoops,
    wide: str,
    narrow: str,
    step: str,
    widen: str,
    outside: list,
    chunks: list,
    tile: list,
    lanes: list,
):
    s = layer.s
    s.reorder(*outside, *chunks, *tile, *lanes)
    for loop in tile:
        s.unroll(loop)
    s.set_scope(narrow, 0, "local")
    s.compute_at(narrow, chunks[-1], preserve_unit_loops=True)
    # y, x, ob, what is outside, chunks, two axes of lanes; then kh, kw, step and, of a dot product, the pair
    block = s.get_sblock(narrow)
    reductions = [v for v in s.get(block).iter_vars if int(v.iter_type) == 2]
    spatial = len(s.get(block).iter_vars) - len(reductions)
    loops = s.get_loops(block)[-spatial - len(reductions) :]
    (y, x, ob, *units), (lane, part), (kh, kw, inner, *pair) = (
        loops[: spatial - 2],
        loops[spatial - 2 : spatial],
        loops[spatial:],
    )
    taps = layer.taps(kh, kw, inner)
    s.reorder(*units, *taps, y, x, ob, lane, part, *pair)
    for loop in (y, x, ob):
        s.unroll(loop)
    _tensorize(s, narrow, taps[0], step, 2 + len(pair), vectors=2)
    layer.unroll(taps)
    _tensorize(s, wide, chunks[0], widen, 2, vectors=1)


def _tensorize(s, name: str, reduction, intrin: str, innermost: int, vectors: int):
    """Zeros before the loop `reduction`, `vectors` axes a vector; the `innermost` loops as the intrinsic."""
    update = s.get_sblock(name)
    zeros = s.get_loops(s.decompose_reduction(update, reduction))[-vectors:]
    s.vectorize(s.fuse(*zeros) if vectors > 1 else zeros[0])
    s.tensorize(s.get_loops(update)[-innermost], intrin)
