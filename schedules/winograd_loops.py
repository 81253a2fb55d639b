"""Loops of family `winograd` (kernels/families/winograd_compute.py), for a group of channels and the lines it serves.

for chunk of lines
  V: for tile, 16 channels: levels transformed                       once for all groups
  for group
    for block, or for row of the transformed tile
      U: for block, 2 input channels: their weights transformed      where they are not stored so
      M: for e, block, tiles: for 2 channels: step                   accumulators in registers
    D: for tile, channels: outputs

U stays in the second cache: those of a block, whose filters are then read and transformed down once for all rows, or, where
they are too many, those of a row.
"""

from __future__ import annotations

from mpcompile.kernels.families.winograd import WinogradSpec, WinogradStages
from mpcompile.schedules.loops import LayerLoops
from mpcompile.schedules.tile import divisors

CHANNELS = {16: 16, 8: 64}
"""Channels that are transformed together, by the bits of what they become."""
NEAR = 512 << 10
"""Bytes of transformed weights that the second cache keeps beside all else."""
SET, LINE = 4096, 64
"""Bytes between places of the first cache that share a set, and of a line."""
FEW, STEPS = 16, 4
"""With more registers than so few, so many steps are written out: 5 % of a layer of 64 channels."""


def apply(layer: LayerLoops, part: WinogradStages, registers: int) -> None:
    """D at the layer's loop over groups, M there too and U at M's over rows of a tile, V at the loop over chunks."""
    s, name, products = layer.s, part.reduction, part.products
    copied = s.cache_write(products, 0, "local")
    s.compute_at(name, layer.group, preserve_unit_loops=True)
    ty, py, tx, px, ob, lane = s.get_loops(s.get_sblock(name))[-6:]
    s.reorder(ty, tx, ob, py, px, lane)
    _unroll(s, py, px)
    s.vectorize(lane)
    _spread(s, copied, 4)
    for name in (part.tiles, part.weights) if part.weights else (part.tiles,):
        _spread(s, name, part.spec.tile.bits // 8)
    s.set_scope(part.sums, 0, "local")
    s.compute_at(part.sums, ob, preserve_unit_loops=True)
    py, _, _, q, _, lane = s.get_loops(s.get_sblock(part.sums))[-6:]
    s.reorder(q, py, lane)
    _unroll(s, q, py)
    s.vectorize(lane)

    s.compute_at(copied, layer.group, preserve_unit_loops=True)
    e, ty, tx, ob, lane = s.get_loops(copied)[-5:]
    rows, tiles, vectors = (s.get(loop).extent.value for loop in (ty, tx, ob))
    down, wide, high = register_tile(rows, tiles, vectors, registers)
    p, q = s.split(e, [None, part.spec.tile.columns.products])
    ty, row = s.split(ty, [None, down])
    tx, tile = s.split(tx, [None, wide])
    ob, vector = s.split(ob, [None, high])
    in_blocks = bool(part.weights) and _bytes(part.spec, high) <= NEAR
    s.reorder(*((ob, p, q) if in_blocks else (p, q, ob)), ty, tx, row, tile, vector, lane)
    _unroll(s, row, tile, vector)
    s.vectorize(lane)
    s.compute_at(products, tx, preserve_unit_loops=True)

    if part.weights:
        if not in_blocks:
            s.unroll(p)
        _weights(s, part, ob if in_blocks else p)
    s.compute_at(part.tiles, layer.shared, preserve_unit_loops=True)
    e, ty, tx, c = s.get_loops(s.get_sblock(part.tiles))[-4:]
    c, channel = s.split(c, [None, max(divisors(s.get(c).extent.value, CHANNELS[part.spec.tile.bits]))])
    s.reorder(ty, tx, c, e, channel)
    s.set_scope(part.half, 0, "local")
    s.compute_at(part.half, c, preserve_unit_loops=True)
    s.unroll(e)
    s.vectorize(channel)
    p, _, _, x, channel = s.get_loops(s.get_sblock(part.half))[-5:]
    s.reorder(x, p, channel)
    _unroll(s, x, p)
    s.vectorize(channel)

    *_, row, tile, vector, lane, c, pair = s.get_loops(s.get_sblock(products))
    s.reorder(c, row, tile, vector, lane, pair)
    _unroll(s, row, tile, vector)
    update = s.get_sblock(products)
    s.vectorize(s.get_loops(s.decompose_reduction(update, c))[-1])
    s.tensorize(s.get_loops(update)[-2], part.spec.instr.wrapping)
    if registers > FEW:
        s.unroll(s.split(c, [None, max(divisors(s.get(c).extent.value, STEPS))])[1])


def _weights(s, part: WinogradStages, at) -> None:
    s.compute_at(part.weights, at, preserve_unit_loops=True)
    e, ob, c, lane, pair = s.get_loops(s.get_sblock(part.weights))[-5:]
    s.reorder(ob, c, e, lane, pair)
    s.set_scope(part.filters, 0, "local")
    s.compute_at(part.filters, c, preserve_unit_loops=True)
    s.unroll(e)
    s.vectorize(s.fuse(lane, pair))
    _, _, p, b, lane, pair = s.get_loops(s.get_sblock(part.filters))[-6:]
    s.reorder(b, p, lane, pair)
    _unroll(s, b, p)
    s.vectorize(s.fuse(lane, pair))


def _spread(s, stage, size: int) -> None:
    """What is stored for all of a tile's products in turn, in elements of so many bytes: a line apart in the first cache,
    not in one set of it."""
    s.storage_align(stage, 0, 0, SET // size, LINE // size)


def _bytes(spec: WinogradSpec, vectors: int) -> int:
    """Of the transformed weights of so many vectors of output channels."""
    steps = -(-spec.data.shape[0] // spec.instr.group)
    return spec.tile.products * steps * vectors * spec.instr.lanes * spec.instr.group * spec.tile.bits // 8


def register_tile(down: int, across: int, vectors: int, registers: int) -> tuple[int, int, int]:
    """(rows of tiles, tiles of a row, vectors of channels) with the fewest loads a step, rather of levels than of
    weights, which come from further away. Weights, a broadcast and a product need registers too."""
    fitting = [
        (rows, wide, high)
        for rows in divisors(down, 4)
        for wide in divisors(across, 8)
        for high in divisors(vectors, 4)
        if rows * wide * high + high + 2 <= registers
    ]
    return min(fitting, key=lambda n: ((n[0] * n[1] + n[2]) / (n[0] * n[1] * n[2]), n[2], n[0]))


def _unroll(s, *loops):
    for loop in loops:
        s.unroll(loop)
