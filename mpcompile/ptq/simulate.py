"""The network with fake quantizers, in ONNX Runtime: one session, whose grids and weights are given anew for each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mpcompile.latency import onnxruntime
from mpcompile.ptq.calibration import Arrays, Calibration
from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.observe import AT_ONCE
from mpcompile.ptq.places import Places
from mpcompile.ptq.rewire import rewired

FINE = 22
"""Bits of a grid that changes nothing: a float32 has 24."""


@dataclass(frozen=True)
class Setting:
    """What to run the network with: activations' grids by tensor, weights and biases by name. What is left out is as in the
    float network."""

    grids: Mapping[str, Grid]
    constants: Mapping[str, np.ndarray]

    def but(self, grids: Mapping[str, Grid] = {}, constants: Mapping[str, np.ndarray] = {}) -> Setting:
        return Setting({**self.grids, **grids}, {**self.constants, **constants})


class Simulation:
    """`reach`: tensor → how far from 0 it came in the float network, for a grid that changes nothing. `also`: tensors that
    can be asked for beside the outputs; with `inputs` what layers read can, too."""

    def __init__(
        self,
        model: FloatModel,
        places: Places,
        reach: Mapping[str, float],
        threads: int,
        also: Iterable[str] = (),
        inputs: bool = False,
    ):
        self.model, self.reach = model, reach
        self.tensors = [*dict.fromkeys([*places.tensors, *places.helpers])]
        proto = rewired(model, places, self._quantizer)
        self.reads = {n.name: n.input[0] for n in proto.graph.node if n.name in places.layers}
        """Layer → the tensor that it reads here."""
        open_to_change = {t for n in proto.graph.node if n.name in places.layers for t in n.input[1:]}
        for tensor in proto.graph.initializer:
            if tensor.name in open_to_change:
                proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        for t in self.tensors:
            for name, value in self._parameters(t, None).items():
                proto.graph.initializer.append(numpy_helper.from_array(value, name))
                proto.graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))
        there = set(model.outputs)
        more = [*also, *(self.reads.values() if inputs else ())]
        proto.graph.output.extend(onnx.ValueInfoProto(name=t) for t in dict.fromkeys(more) if t not in there)
        self.session = onnxruntime.session(proto.SerializeToString(), threads)

    def run(self, samples: Calibration, setting: Setting) -> list[np.ndarray]:
        """Each output over all samples."""
        feeds = self._feeds(setting)
        found = [self.session.run(self.model.outputs, {**batch, **feeds}) for batch in samples.batches(AT_ONCE)]
        return [
            np.concatenate([np.atleast_1d(np.asarray(part[i])) for part in found])
            for i in range(len(self.model.outputs))
        ]

    def means(self, samples: Calibration, setting: Setting, tensors: Iterable[str]) -> dict[str, np.ndarray]:
        """float64 [channels] of each tensor, channels along axis 1: over samples and places."""
        feeds, wanted, count = self._feeds(setting), list(tensors), 0
        sums: dict[str, np.ndarray] = {}
        for batch in samples.batches(AT_ONCE):
            for t, value in zip(wanted, self.session.run(wanted, {**batch, **feeds})):
                y = np.asarray(value)
                total = len(y) * y.mean((0, *range(2, y.ndim)), dtype=np.float64)
                sums[t] = sums[t] + total if t in sums else total
            count += len(next(iter(batch.values())))
        return {t: total / count for t, total in sums.items()}

    def input_of(self, layer: str, batch: Arrays, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
        """What a layer reads of a batch: in the float network, and with `setting`."""
        name = self.reads[layer]
        (x,) = self.session.run([name], dict(batch))
        (quantized,) = self.session.run([name], {**batch, **self._feeds(setting)})
        return np.asarray(x), np.asarray(quantized)

    def _feeds(self, setting: Setting) -> dict[str, np.ndarray]:
        feeds: dict[str, np.ndarray] = dict(setting.constants)
        for t, grid in setting.grids.items():
            feeds |= self._parameters(t, grid)
        return feeds

    def _parameters(self, tensor: str, grid: Grid | None) -> dict[str, np.ndarray]:
        if grid is None:
            scale = max(self.reach[tensor], 1e-30) / (1 << FINE)
            parts = scale, 0.0, -float(1 << 24), float(1 << 24)
        else:
            parts = float(grid.scale[0]), grid.zero, float(grid.low), float(grid.high)
        names = [f"{tensor}.fake.{what}" for what in ("scale", "zero", "low", "high")]
        return {name: np.array(value, np.float32) for name, value in zip(names, parts)}

    def _quantizer(self, tensor: str, output: str) -> list[onnx.NodeProto]:
        names = list(self._parameters(tensor, None))
        steps = [
            ("Div", [tensor, names[0]]),
            ("Add", ["", names[1]]),
            ("Clip", ["", names[2], names[3]]),
            ("Round", [""]),
            ("Sub", ["", names[1]]),
            ("Mul", ["", names[0]]),
        ]
        made, before = [], tensor
        for i, (op, inputs) in enumerate(steps):
            after = output if i == len(steps) - 1 else f"{output}.{i}"
            made.append(helper.make_node(op, [before, *inputs[1:]], [after], name=f"{output}.{op}"))
            before = after
        return made
