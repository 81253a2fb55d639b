"""The network with fake quantizers, run layer by layer: what each layer reads, in float and behind all that was settled
before, without running anything twice. What later layers need is kept for all samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper

from mpcompile.latency import onnxruntime
from mpcompile.ptq.calibration import Arrays, Calibration
from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.observe import AT_ONCE
from mpcompile.ptq.simulate import Setting, Simulated

MOST_BYTES = 2 << 30
"""That the kept tensors of all samples may take, about."""
LIVE = 3
"""Tensors as large as the largest that are kept at once, in most networks."""
FEWEST = 16


def few_enough(samples: Calibration, model: FloatModel, seed: int) -> Calibration:
    """So many of the samples that what is kept of them takes MOST_BYTES or less; FEWEST in any case."""
    sizes = [math.prod(n or 1 for n in s[1:]) for name, s in model.shapes.items() if name not in model.constants]
    each = 2 * LIVE * 4 * max(sizes, default=1)
    return samples.some(max(FEWEST, MOST_BYTES // each), seed)


class Stages:
    """Iterates over the layers of `simulated` in the file's order: their names, with the inputs in float and as they are
    with the `setting` that its user has changed until then, a pair for each batch of samples."""

    def __init__(self, simulated: Simulated, samples: Calibration, setting: Setting, threads: int):
        self.simulated, self.setting, self.threads = simulated, setting, threads
        batches = list(samples.batches(AT_ONCE))
        self.float_states: list[Arrays] = [dict(batch) for batch in batches]
        self.states: list[Arrays] = [dict(batch) for batch in batches]

    def __iter__(self) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
        nodes, start = list(self.simulated.proto.graph.node), 0
        for at, node in enumerate(nodes):
            if node.name not in self.simulated.reads:
                continue
            later = {t for n in nodes[at:] for t in n.input}
            self._advance(nodes[start:at], later)
            start, read = at, self.simulated.reads[node.name]
            yield node.name, [(f[read], q[read]) for f, q in zip(self.float_states, self.states)]

    def _advance(self, nodes: Sequence[onnx.NodeProto], later: set[str]) -> None:
        """Runs `nodes` on all batches, and keeps what is read later."""
        made = [t for n in nodes for t in n.output if t in later]
        if made:
            inside = {t for n in nodes for t in n.output}
            read = dict.fromkeys(t for n in nodes for t in n.input if t and t not in inside)
            live = [t for t in read if t in self.float_states[0]]
            session = self._session(nodes, [t for t in read if t not in live], live, made)
            feeds = {t: a for t, a in self.simulated.feeds(self.setting).items() if t in read}
            for state, more in [*((s, {}) for s in self.float_states), *((s, feeds) for s in self.states)]:
                found = session.run(made, {**{t: state[t] for t in live}, **more})
                state.update(zip(made, map(np.asarray, found)))
        for state in (*self.float_states, *self.states):
            for t in [t for t in state if t not in later]:
                del state[t]

    def _session(self, nodes: Sequence[onnx.NodeProto], constants: list[str], live: list[str], made: list[str]):
        """`constants` can be changed where the simulated network's can."""
        whole = self.simulated.proto.graph
        held = {t.name: t for t in whole.initializer}
        inputs = []
        for t in live:
            value = self.float_states[0][t]
            kind = helper.np_dtype_to_tensor_dtype(value.dtype)
            inputs.append(helper.make_tensor_value_info(t, kind, [None, *value.shape[1:]] if value.ndim else []))
        inputs += [v for v in whole.input if v.name in constants]
        outputs = [onnx.ValueInfoProto(name=t) for t in made]
        graph = helper.make_graph(list(nodes), "stage", inputs, outputs, [held[t] for t in constants])
        opsets = list(self.simulated.proto.opset_import)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.simulated.proto.ir_version)
        return onnxruntime.session(model.SerializeToString(), self.threads)
