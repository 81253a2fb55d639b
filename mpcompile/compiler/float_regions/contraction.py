"""A register tile for the contractions of float operators (MatMul, Gemm, Conv): without one they take five to twenty times
as long as ONNX Runtime's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

from mpcompile.kernels.tvm_names import Schedule, TensorLoad, tirx
from mpcompile.targets import Target

SPATIAL = 0
"""IterVar.iter_type: data parallel."""
WORTH_PADDING = 1 << 13
"""Products from which copying what is multiplied into a padded buffer pays."""
MOST_ROWS, MOST_VECTORS = 8, 4
COPIED = 1.15
"""What padding costs, of the products."""


@dataclass(frozen=True)
class Vectors:
    """Of a target: float32 lanes of a vector, and how many vectors of accumulators there may be."""

    lanes: int
    accumulators: int

    @staticmethod
    def of(target: Target) -> Vectors:
        """AVX-512 and 64-bit ARM have 32 registers, others 16."""
        many = target.vector_bits >= 512 or target.arch == "aarch64"
        return Vectors(max(1, target.vector_bits // 32), 24 if many else 12)


@dataclass(frozen=True)
class _Tile:
    """rows × vectors·lanes accumulators; `padded`: elements of the two axes then, some of them computed for nothing."""

    rows: int
    vectors: int
    lanes: int
    padded: tuple[int, int]

    @property
    def cost(self) -> float:
        """Loads and products, relative."""
        work = self.padded[0] * self.padded[1] / self.lanes
        return work * (1 + (self.rows + self.vectors) / (self.rows * self.vectors))


def contract(sch: Schedule, block: Any, vectors: Vectors, shared_from: int) -> bool:
    """Schedules `block`, a sum of products of two buffers, by a register tile of two of its spatial axes: the last, along
    which one factor and the result are vectors, and one that only the other factor has. Threads share its outer loops from
    so many products on. False where it is no such sum: nothing is changed then."""
    found = _axes(sch, block)
    if found is None:
        return False
    row, padding = found
    loops = sch.get_loops(block)
    sizes = [int(sch.get(loop).extent) for loop in loops]
    kinds = [int(v.iter_type) for v in sch.get(block).iter_vars]
    last = max(i for i, kind in enumerate(kinds) if kind == SPATIAL)
    work = math.prod(sizes)
    tile = _tile(sizes[row], sizes[last], vectors, padding and work >= WORTH_PADDING)
    if tile.rows * tile.vectors * tile.lanes < 4:
        return False
    if tile.padded != (sizes[row], sizes[last]):
        by = [tile.rows if i == row else tile.vectors * tile.lanes if i == last else 1 for i in range(len(sizes))]
        sch.pad_einsum(block, by)
        loops = sch.get_loops(block)
    kept = sch.cache_write(block, 0, "local")
    loops = sch.get_loops(block)
    reduced = [loop for loop, kind in zip(loops, kinds) if kind != SPATIAL]
    around = [loop for i, (loop, kind) in enumerate(zip(loops, kinds)) if kind == SPATIAL and i not in (row, last)]
    row_outer, row_inner = sch.split(loops[row], [None, tile.rows])
    outer, vector, lane = sch.split(loops[last], [None, tile.vectors, tile.lanes])
    # Of a convolution the lines of a map are between: a tile of filters serves all of them.
    order = [row_outer, *around, outer] if not padding else [*around, outer, row_outer]
    sch.reorder(*order, *reduced, row_inner, vector, lane)
    sch.reverse_compute_at(kept, order[-1], preserve_unit_loops=True)
    for loop in (row_inner, vector):
        sch.unroll(loop)
    if tile.lanes > 1:
        sch.vectorize(lane)
    stored = sch.get_loops(kept)
    a, b = sch.split(stored[-1], [None, tile.lanes])
    sch.unroll(a)
    if tile.lanes > 1:
        sch.vectorize(b)
    shared = sch.fuse(*order[:-1]) if len(order) > 1 else order[0]
    if work >= shared_from:  # before the reduction has two writers, which `parallel` does not accept
        sch.parallel(shared)
    sch.decompose_reduction(block, reduced[0])
    return True


def _axes(sch: Schedule, block: Any) -> tuple[int, bool] | None:
    """(number of the spatial axis that only one factor has, whether both factors are indexed by axes alone) of a sum of
    products."""
    made = sch.get(block)
    store = made.body
    variables = [v.var for v in made.iter_vars]
    kinds = [int(v.iter_type) for v in made.iter_vars]
    if SPATIAL not in kinds or all(k == SPATIAL for k in kinds) or not isinstance(store, tirx.BufferStore):
        return None
    total = store.value
    if not isinstance(total, tirx.Add) or not isinstance(total.b, tirx.Mul):
        return None
    factors = [total.b.a, total.b.b]
    if not all(isinstance(f, TensorLoad) for f in factors) or not isinstance(total.a, TensorLoad):
        return None
    if not total.a.source.same_as(store.buffer) or str(store.buffer.dtype) != "float32":
        return None
    reads = [[_variables(i, variables) for i in f.indices] for f in factors]
    of = [set().union(*r) for r in reads]
    last = max(i for i, kind in enumerate(kinds) if kind == SPATIAL)
    along = [last in o for o in of]
    if along.count(True) != 1 or not any(v.same_as(store.indices[-1]) for v in variables[last : last + 1]):
        return None
    vector, scalar = (0, 1) if along[0] else (1, 0)
    if last not in reads[vector][-1]:  # its vectors are not contiguous
        return None
    rows = [i for i, k in enumerate(kinds) if k == SPATIAL and i in of[scalar] and i not in of[vector]]
    rows = [i for i in rows if int(made.iter_vars[i].dom.extent) > 1]
    alone = all(isinstance(i, tirx.Var) for f in factors for i in f.indices)
    return (rows[-1], alone) if rows else None


def _variables(index: Any, variables: list) -> set[int]:
    """Numbers of those of `variables` that an index reads."""
    if isinstance(index, tirx.Var):
        return {i for i, v in enumerate(variables) if v.same_as(index)}
    inside = [getattr(index, name) for name in ("a", "b", "value") if hasattr(index, name)]
    return set().union(*(_variables(i, variables) for i in inside if not isinstance(i, int)))


def _tile(rows: int, columns: int, vectors: Vectors, padding: bool) -> _Tile:
    """The cheapest."""
    lanes = vectors.lanes
    if not padding:
        lanes = next((n for n in (vectors.lanes, 8, 4) if n <= vectors.lanes and columns % n == 0), 0)
        lanes = lanes or max(n for n in range(1, vectors.lanes + 1) if columns % n == 0)
    found = []
    for r, v in product(range(1, MOST_ROWS + 1), range(1, MOST_VECTORS + 1)):
        if r * v > vectors.accumulators:
            continue
        whole = (-(-rows // r) * r, -(-columns // (v * lanes)) * v * lanes)
        if padding or whole == (rows, columns):
            found.append(_Tile(r, v, lanes, whole))
    return min(found, key=lambda t: t.cost * (1 if t.padded == (rows, columns) else COPIED))
