"""Layers as kernels of their own, for measuring: lowered without a network, told apart, built side by side."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mpcompile.compiler.backend import build_library
from mpcompile.compiler.collect_steps import Collected
from mpcompile.compiler.lower_layers import lower_assigned
from mpcompile.compiler.offsets import aligned
from mpcompile.compiler.passes.choose_formats import Allowed, ChooseFormats
from mpcompile.compiler.plan_memory import placed_plan
from mpcompile.compiler.steps import Steps, Store
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import Layer
from mpcompile.ir.plan import Plan
from mpcompile.kernels.layer import Lowered, Tiles
from mpcompile.targets import Target

FUNCTION = "layer"
_CONSTANT = re.compile(r"T\.float32\([^()]*\)")


@dataclass(frozen=True, eq=False)
class LayerKernel:
    """One layer's kernel. `identity`: kernels with equal ones run the same instructions over the same memory, so take
    the same time.

    It is the scheduled function itself but for its float constants: bounds and scales that it compares and multiplies
    with, which decide nothing about what is run.
    """

    lowered: Lowered
    identity: str

    def plan(self) -> tuple[Plan, np.ndarray]:
        """A plan of this one call, and its block of weights. Inputs and outputs lie in the workspace, in this order."""
        steps, lowered = Steps(), self.lowered
        inputs = [Store(b.nbytes) for b in lowered.inputs]
        constants = [steps.constant(c) for c in lowered.constants]
        sizes = [b.nbytes for b in lowered.outputs]
        outputs = steps.call(FUNCTION, lowered.func, [*inputs, *constants], sizes, FUNCTION)
        size = 0
        for store in (*inputs, *outputs):
            store.offset, size = size, size + aligned(store.nbytes)
        stored = dict(zip((*lowered.inputs, *lowered.outputs), (*inputs, *outputs), strict=True))
        plan = placed_plan(Collected(steps, stored), (), (), size, size)
        return plan, np.frombuffer(bytes(steps.weights), np.uint8)


def lower_layer(
    graph: Graph, name: str, target: Target, allowed: Allowed | None = None, tiles: Tiles | None = None
) -> LayerKernel:
    """Layer `name` of a fused graph, with the forms and families that compiling this graph would choose of those that
    are `allowed`; `tiles` as for kernels.layer.lower."""
    assignment = ChooseFormats(target, allowed or {}).apply(graph)
    node = next(n for n in graph.nodes if isinstance(n, Layer) and n.name == name)
    lowered = lower_assigned(node, assignment, target, tiles=tiles)
    code = _CONSTANT.sub("float", lowered.func.script())  # pyright: ignore[reportAttributeAccessIssue]
    return LayerKernel(lowered, hashlib.sha256(code.encode()).hexdigest()[:32])


def build_libraries(kernels: Sequence[LayerKernel], target: Target, workers: int) -> list[bytes]:
    """A library for each kernel, in which it is FUNCTION; `workers` at a time: TVM lets go of Python's lock."""
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(lambda k: build_library({FUNCTION: k.lowered.func}, target), kernels))
    finally:
        pool.shutdown(cancel_futures=True)
