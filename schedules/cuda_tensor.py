"""A product of matrices of bits on tensor cores, as a kernel of its own, whose sums the layer's other kernel reads.

for block: tile of pixels × channels                   all planes of them: rows and columns of the product
  for up to four steps of 8 words
    rows of the data, columns of the weights → shared memory, by all threads
    for step, warp: its 16×16 tiles: ldmatrix, two mma each
  the product → shared memory
  for thread: a pixel and a channel: the sum over plane pairs → memory
"""

from __future__ import annotations

from math import lcm

from mpcompile.kernels.families.popcount import PopcountRowsStages
from mpcompile.kernels.families.popcount_rows import STEP, RowTile
from mpcompile.kernels.tvm_names import Schedule
from mpcompile.schedules import cuda_mma

FRAGMENT, WARP = 16, 32
ROWS = 64
"""Rows and columns of a block's product, about; a warp has half of each."""
MOST_PLANES = 4
"""Of weights and of activations: above, where popcount never wins, threads count words."""
PAD, BANK = 4, 8
"""Rows in shared memory begin PAD words past a multiple of BANK: ldmatrix then reads 8 of them from different banks."""


def row_tile(planes_w: int, planes_a: int, depth: int, channels: int) -> RowTile | None:
    """None where the product has less than one step, or more planes than pay."""
    if max(planes_w, planes_a) > MOST_PLANES or depth < WARP * STEP:
        return None
    rows, columns = (_side(planes) for planes in (planes_a, planes_w))
    return RowTile(rows // planes_a, columns // planes_w)


def _side(planes: int) -> int:
    """Rows of a block: whole fragments for two warps, and whole pixels."""
    least = lcm(2 * FRAGMENT, planes)
    return least * max(1, ROWS // least)


def schedule(s: Schedule, stages: PopcountRowsStages) -> None:
    """The kernel of one part. What it gives stays in memory."""
    spec = stages.spec
    planes_w, planes_a = len(spec.pairs), len(spec.pairs[0])
    tile_m, tile_n = spec.tile.pixels * planes_a, spec.tile.channels * planes_w
    warps = 4
    added, product = s.get_sblock(stages.added), s.get_sblock(stages.reduction)
    pixel, channel = s.get_loops(added)
    bx, pixel = s.split(pixel, [None, spec.tile.pixels])
    by, channel = s.split(channel, [None, spec.tile.channels])
    s.reorder(bx, by, pixel, channel)
    s.bind(bx, "blockIdx.x")
    s.bind(by, "blockIdx.y")
    s.set_scope(product, 0, "shared")
    s.compute_at(product, by)
    _share(s, s.fuse(pixel, channel), warps)

    # fragments, then warps, then steps
    i, j, k = s.get_loops(product)[2:]
    i, row = s.split(i, [None, FRAGMENT])
    j, column = s.split(j, [None, FRAGMENT])
    k, word = s.split(k, [None, STEP])
    s.reorder(i, j, k, row, column, word)
    outer = s.blockize(row)
    warp_i, i = s.split(i, [2, None])
    warp_j, j = s.split(j, [2, None])
    steps = next(n for n in (4, 2, 1) if int(s.get(k).extent) % n == 0)
    chunk, k = s.split(k, [None, steps])
    s.reorder(warp_i, warp_j, chunk, k, i, j)
    warp = s.fuse(warp_i, warp_j)
    s.bind(warp, "threadIdx.y")

    rows = s.get_sblock(stages.rows)
    s.set_scope(rows, 0, "shared")
    s.compute_at(rows, chunk)
    columns = s.cache_read(outer, 1, "shared")
    s.compute_at(columns, chunk)
    for block, height in ((rows, tile_m), (columns, tile_n)):
        whole = next(v for v in (4, 2, 1) if height * STEP * steps % (warps * WARP * v) == 0)
        # words of the data that are neighbours in a row may lie apart
        _share(s, s.fuse(*s.get_loops(block)[-2:]), warps, 1 if block is rows else whole)
        s.storage_align(block, 0, -2, BANK, PAD)
    for index, at, intrinsic in ((0, cuda_mma.a_at, cuda_mma.LOAD_A), (1, cuda_mma.b_at, cuda_mma.LOAD_B)):
        fragment = s.cache_read(outer, index, "warp")
        s.compute_at(fragment, k)
        loop = _fragments(s, fragment, STEP)
        s.transform_layout(fragment, ("write", 0), _layout(at, STEP))
        s.tensorize(loop, intrinsic)
    written = s.cache_write(outer, 0, "warp")
    s.reverse_compute_at(written, warp)
    loop = _fragments(s, written, FRAGMENT)
    s.transform_layout(outer, ("write", 0), _layout(cuda_mma.c_at, FRAGMENT))
    s.tensorize(loop, cuda_mma.STORE)
    init = s.decompose_reduction(outer, chunk)
    s.tensorize(s.get_loops(s.get_child_blocks(init)[0])[-2], cuda_mma.FILL)
    s.tensorize(s.get_loops(product)[-3], cuda_mma.MMA)


def _share(s: Schedule, loop, warps: int, lanes: int = 1) -> None:
    """All threads of a block share a loop, `lanes` neighbouring elements each."""
    _, warp, lane, vector = s.split(loop, [None, warps, WARP, lanes])
    s.bind(warp, "threadIdx.y")
    s.bind(lane, "threadIdx.x")
    if lanes > 1:
        s.vectorize(vector)


def _fragments(s: Schedule, block, columns: int):
    """Splits the two innermost loops of a block into fragments of 16 × `columns`; the outer loop of one."""
    i, j = s.get_loops(block)[-2:]
    i, row = s.split(i, [None, FRAGMENT])
    j, column = s.split(j, [None, columns])
    s.reorder(i, j, row, column)
    return row


def _layout(at, columns: int):
    return lambda i, j: [i // FRAGMENT, j // columns, *at(i % FRAGMENT, j % columns)]
