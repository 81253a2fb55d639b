"""A compiled network whose kernels are emulated: what compares bundles with the reference takes it for one that is open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpcompile.api.verify import fused, inputs_of
from mpcompile.compiler import pipeline
from mpcompile.compiler.cuda.backend import source_of
from mpcompile.frontend import graph_of
from mpcompile.ir.graph import Graph
from mpcompile.ir.plan import Arg
from mpcompile.reference import compare
from mpcompile.runtime.aligned import aligned
from mpcompile.targets import load_target
from tests.cuda.emulate import Emulated


class EmulatedNetwork:
    """`planned` for a CUDA device."""

    def __init__(self, planned: pipeline.Planned, target: str):
        self.planned, self.plan = planned, planned.plan
        self._call = Emulated(source_of(planned.functions, load_target(target)))
        self._blocks = {"weights": aligned(len(planned.weights)), "workspace": aligned(self.plan.workspace_bytes)}
        self._blocks["weights"][:] = np.frombuffer(planned.weights, np.uint8)
        self._blocks["workspace"][:] = 0x5A
        self._ports = {
            space: [np.zeros(p.shape, np.float32) for p in ports]
            for space, ports in (("input", self.plan.inputs), ("output", self.plan.outputs))
        }

    def view(self, arg: Arg) -> np.ndarray:
        if arg.space in self._ports:
            return self._ports[arg.space][arg.offset].view(arg.dtype).reshape(arg.shape)
        nbytes = int(np.prod(arg.shape, dtype=np.int64)) * np.dtype(arg.dtype).itemsize
        return self._blocks[arg.space][arg.offset :][:nbytes].view(arg.dtype).reshape(arg.shape)

    def run_traced(self, x: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
        trace: dict[str, dict[str, np.ndarray]] = {}
        for port, held in zip(self.plan.inputs, self._ports["input"]):
            held[...] = np.asarray(x[port.name], np.float32).reshape(port.shape)
        for i in range(-1, len(self.plan.calls)):
            if i >= 0:
                call = self.plan.calls[i]
                self._call(call.function, [self.view(arg) for arg in call.args])
            for placed in self.plan.buffers:
                if placed.written == i:
                    kept = self.view(placed.arg).copy()
                    trace.setdefault(placed.buffer.tensor, {})[placed.buffer.key] = kept
        return trace

    def run(self, x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.run_traced(x)
        return {port.name: held.copy() for port, held in zip(self.plan.outputs, self._ports["output"])}


def verify(
    model: Path | Graph, target: str, samples: int = 1, options: pipeline.Options = pipeline.Options()
) -> compare.Report:
    """Every stored byte of a model's kernels for a CUDA device, emulated, against the reference."""
    graph = graph_of(model)
    network = EmulatedNetwork(pipeline.plan(graph, load_target(target), options), target)
    inputs = {name: values[:samples] for name, values in inputs_of(graph, None).items()}
    return compare.verify(fused(graph), network, inputs)
