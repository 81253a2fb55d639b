"""Loops of a dot product by Winograd's tiles (kernels/families/dot_winograd.py), for a group of channels and the lines
it serves.

for chunk of lines
  V: for tile, 16 channels: 4 × 4 levels transformed            once for all groups
  for group
    M: for e, block, tile row, tiles: for 2 channels: step      accumulators in registers
    D: for tile, channels: 2 × 2 outputs
"""

from __future__ import annotations

from mpcompile.kernels.families.dot import WinogradStages
from mpcompile.schedules.loops import LayerLoops
from mpcompile.schedules.tile import divisors

CHANNELS = 16
"""Channels that are transformed together."""


def register_tile(across: int, vectors: int, registers: int) -> tuple[int, int]:
    """(tiles, vectors of channels) with the fewest loads a step, rather of levels than of weights, which come from
    further away. Weights, a broadcast and a product need registers too."""
    fitting = [(t, v) for t in divisors(across, 8) for v in divisors(vectors, 4) if t * v + v + 2 <= registers]
    return min(fitting, key=lambda n: ((n[0] + n[1]) / (n[0] * n[1]), n[1]))


def dot(layer: LayerLoops, part: WinogradStages, registers: int) -> None:
    """D[ty, py, tx, px, ob, lane] at the layer's loop over groups, M there too, V at the loop over chunks of lines."""
    s, name, products, tiles = layer.s, part.reduction, part.products, part.tiles
    copied = s.cache_write(products, 0, "local")
    s.compute_at(name, layer.group, preserve_unit_loops=True)
    ty, py, tx, px, ob, lane = s.get_loops(s.get_sblock(name))[-6:]
    s.reorder(ty, tx, ob, py, px, lane)
    _unroll(s, py, px)
    s.vectorize(lane)

    s.compute_at(copied, layer.group, preserve_unit_loops=True)
    e, ty, tx, ob, lane = s.get_loops(copied)[-5:]
    wide, high = register_tile(s.get(tx).extent.value, s.get(ob).extent.value, registers)
    tx, tile = s.split(tx, [None, wide])
    ob, vector = s.split(ob, [None, high])
    s.reorder(e, ob, ty, tx, tile, vector, lane)
    _unroll(s, tile, vector)
    s.vectorize(lane)
    s.compute_at(products, tx, preserve_unit_loops=True)
    s.compute_at(tiles, layer.shared, preserve_unit_loops=True)
    e, ty, tx, c = s.get_loops(s.get_sblock(tiles))[-4:]
    c, channel = s.split(c, [None, max(divisors(s.get(c).extent.value, CHANNELS))])
    s.reorder(ty, tx, c, e, channel)
    s.unroll(e)
    s.vectorize(channel)

    *_, tile, vector, lane, c, pair = s.get_loops(s.get_sblock(products))
    s.reorder(c, tile, vector, lane, pair)
    _unroll(s, tile, vector)
    update = s.get_sblock(products)
    s.vectorize(s.get_loops(s.decompose_reduction(update, c))[-1])
    s.tensorize(s.get_loops(update)[-2], part.spec.instr.intrin)


def _unroll(s, *loops):
    for loop in loops:
        s.unroll(loop)
