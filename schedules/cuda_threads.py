"""A layer on a CUDA device without tensor cores: a thread computes the channels that one byte of a packed word holds.

    for block, thread: (y, x, group, lane)                 neighbouring threads: neighbouring channels of a pixel
      for vector                                           the channels (group·vectors + vector)·lanes + lane
        for kh, kw, word: AND, POPC, ADD                   (or four products of bytes)
        shift, add, correct → epilogue → level
      pack and store

What goes from one step to the next stays in the thread's registers. Pixel sums are kernels of their own, a thread a pixel,
which read what was stored; so are forms whose elements are not those that are computed (plain ones, and fewer channels), a
thread an element, with the computed values in memory between. Every family and every layer has this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mpcompile.kernels.families.dot import DotSpec
from mpcompile.kernels.families.popcount import PopcountRowsStages
from mpcompile.kernels.spec import LayerSpec
from mpcompile.kernels.stages import PartStages, Stages, StoredStage
from mpcompile.kernels.tvm_names import PrimFunc, Schedule
from mpcompile.schedules import cuda_tensor


def block_of(extents: Sequence[int], most: int) -> int:
    """The most threads, up to `most`, into whose blocks loops can be split: whole inner loops, a divisor of the next."""
    inner = 1
    for extent in reversed(extents):
        if inner * extent > most:
            return inner * next(d for d in range(most // inner, 0, -1) if extent % d == 0)
        inner *= extent
    return inner


@dataclass
class Threads:
    """The kernels of one layer, of blocks of at most so many threads."""

    s: Schedule
    stages: Stages
    spec: LayerSpec
    threads: int

    def apply(self) -> PrimFunc:
        s = self.s
        y, x, group, vector, lane = s.get_loops(s.get_sblock("value"))
        s.reorder(y, x, group, lane, vector)
        self.thread, self.vector = self.bound(y, x, group, lane), vector
        apart = {self.source(stage) for stage in self.stages.stored if self.apart(stage)}
        for name in ("value", *self.stages.levels):
            s.set_scope(name, 0, "global" if name in apart else "local")
        for name in self.stages.levels:
            s.reverse_compute_at(name, self.vector, preserve_unit_loops=True)
        for stage in self.stages.stored:
            self.store(stage)
        for name in self.stages.pools:
            self.reduce(name)
        for name in self.stages.accumulators:
            s.set_scope(name, 0, "local")
            s.compute_at(name, self.vector, preserve_unit_loops=True)
        for part in self.stages.parts:
            self.part(part)
        for name in self.stages.windows:
            self.reduce(name)
        return s.mod["main"]

    def bound(self, *loops):
        """The threads of a kernel that shares these loops."""
        s = self.s
        threads = block_of([int(s.get(loop).extent) for loop in loops], self.threads)
        block, thread = s.split(s.fuse(*loops), [None, threads])
        s.bind(block, "blockIdx.x")
        s.bind(thread, "threadIdx.x")
        return thread

    def reduce(self, name: str) -> None:
        """A reduction of one thread for each vector, in its registers."""
        s = self.s
        s.set_scope(name, 0, "local")
        s.compute_at(name, self.vector, preserve_unit_loops=True)
        spatial, reduction = self.loops(name)
        if reduction:
            s.reorder(*reduction, *spatial)
            s.decompose_reduction(name, reduction[0])

    def loops(self, name: str) -> tuple[list, list]:
        """Those of a block over what it computes, and those over what it adds up."""
        s = self.s
        block = s.get_sblock(name)
        axes = s.get(block).iter_vars
        loops = s.get_loops(block)[-len(axes) :]
        spatial = [loop for loop, axis in zip(loops, axes) if int(axis.iter_type) == 0]
        return spatial, [loop for loop, axis in zip(loops, axes) if int(axis.iter_type) != 0]

    def part(self, part: PartStages) -> None:
        s = self.s
        if isinstance(part, PopcountRowsStages):
            cuda_tensor.schedule(s, part)
            return
        s.set_scope(part.reduction, 0, "local")
        s.compute_at(part.reduction, self.vector, preserve_unit_loops=True)
        spatial, reduction = self.loops(part.reduction)
        dot = isinstance(part.spec, DotSpec) and part.spec.instr.intrin
        products = reduction.pop() if dot else None
        s.reorder(*reduction, *spatial, *([products] if dot else []))
        for loop in spatial[3:-1]:  # slots, plane pairs: an accumulator each
            s.unroll(loop)
        s.decompose_reduction(part.reduction, reduction[0])
        if dot:
            s.tensorize(products, dot)

    def apart(self, stage: StoredStage) -> bool:
        """Whether it is stored by a kernel of its own, since its elements are not those that are computed: it has other
        axes, or fewer channels."""
        axes = self.s.get(self.s.get_sblock(stage.name)).iter_vars
        return stage.format not in ("sums", "planes") and len(axes) < 5

    def source(self, stage: StoredStage) -> str:
        """The stage that it stores."""
        (block,) = self.s.get_producers(self.s.get_sblock(stage.name))
        return self.s.get(block).name_hint

    def store(self, stage: StoredStage) -> None:
        s, name = self.s, stage.name
        if stage.format == "sums":
            y, x, *_ = s.get_loops(s.get_sblock(name))
            self.bound(y, x)
        elif self.apart(stage):
            self.bound(*s.get_loops(s.get_sblock(name)))
        elif stage.format == "planes":
            s.set_scope(stage.bits, 0, "local")
            s.reverse_compute_at(stage.bits, self.thread, preserve_unit_loops=True)
            s.reverse_compute_at(name, self.thread, preserve_unit_loops=True)
        else:
            s.reverse_compute_at(name, self.vector, preserve_unit_loops=True)
