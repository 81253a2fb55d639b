"""Layers as kernels of their own, for measuring: lowered without a network, told apart, built side by side."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mpcompile.compiler.library import build_library
from mpcompile.compiler.offsets import aligned
from mpcompile.compiler.passes.choose_formats import Allowed, ChooseFormats
from mpcompile.compiler.relax_ops import parameters
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import Layer
from mpcompile.ir.plan import Arg, Call, Placed, Plan
from mpcompile.kernels.layer import Lowered, Tiles, lower
from mpcompile.schedules import architecture_of
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
        kinds = parameters(self.lowered.func)
        args, buffers, weights, size = [], [], bytearray(), 0
        inputs, constants = len(self.lowered.inputs), self.lowered.constants
        stored = [*self.lowered.inputs, *[None] * len(constants), *self.lowered.outputs]
        for i, (buffer, (dtype, shape)) in enumerate(zip(stored, kinds, strict=True)):
            if buffer is None:
                weights += bytes(aligned(len(weights)) - len(weights))
                args.append(Arg("weights", len(weights), dtype, shape))
                weights += np.ascontiguousarray(constants[i - inputs]).tobytes()
                continue
            args.append(Arg("workspace", size, dtype, shape))
            arg = Arg("workspace", size, buffer.dtype, buffer.buffer_shape)
            buffers.append(Placed(buffer, arg, -1 if i < inputs else 0, 0))
            size += aligned(buffer.nbytes)
        plan = Plan((), (), (Call(FUNCTION, FUNCTION, tuple(args)),), tuple(buffers), size, size)
        return plan, np.frombuffer(bytes(weights), np.uint8)


def lower_layer(
    graph: Graph, name: str, target: Target, allowed: Allowed | None = None, tiles: Tiles | None = None
) -> LayerKernel:
    """Layer `name` of a fused graph, with the forms and families that compiling this graph would choose of those that
    are `allowed`; `tiles` as for kernels.layer.lower."""
    assignment = ChooseFormats(target, allowed or {}).apply(graph)
    node = next(n for n in graph.nodes if isinstance(n, Layer) and n.name == name)
    stored = {t: assignment.buffers[t] for t in (*node.inputs, *node.outputs)}
    lowered = lower(
        node,
        {t: stored[t] for t in node.inputs},
        {t: stored[t] for t in node.outputs},
        assignment.families[name],
        architecture_of(target),
        tiles=tiles,
    )
    code = _CONSTANT.sub("float", lowered.func.script())
    return LayerKernel(lowered, hashlib.sha256(code.encode()).hexdigest()[:32])


def build_libraries(kernels: Sequence[LayerKernel], target: Target, workers: int) -> list[bytes]:
    """A library for each kernel, in which it is FUNCTION; `workers` at a time: TVM lets go of Python's lock."""
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(lambda k: build_library({FUNCTION: k.lowered.func}, target.tvm_dict()), kernels))
    finally:
        pool.shutdown(cancel_futures=True)
