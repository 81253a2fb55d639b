"""The network with fake quantizers, in ONNX Runtime: its grids and weights are given anew for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mpcompile.latency import onnxruntime
from mpcompile.ptq.calibration import Calibration
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


class Simulated:
    """`proto`: the network with fake quantizers, whose parameters, and the layers' weights and biases, are inputs that may
    be left out. `reads`: layer → the tensor that it reads there. `reach`: tensor → how far from 0 it came in the float
    network, for a grid that changes nothing."""

    def __init__(self, model: FloatModel, places: Places, reach: Mapping[str, float]):
        self.model, self.reach = model, reach
        self.proto = rewired(model, places, self._quantizer)
        graph = self.proto.graph
        self.reads = {n.name: n.input[0] for n in graph.node if n.name in places.layers}
        open_to_change = {t for n in graph.node if n.name in places.layers for t in n.input[1:]}
        for tensor in graph.initializer:
            if tensor.name in open_to_change:
                graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        for t in dict.fromkeys([*places.tensors, *places.helpers]):
            for name, value in self._parameters(t, None).items():
                graph.initializer.append(numpy_helper.from_array(value, name))
                graph.input.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, value.shape))

    def feeds(self, setting: Setting) -> dict[str, np.ndarray]:
        """What a run with a setting is given beside the model's inputs."""
        found: dict[str, np.ndarray] = dict(setting.constants)
        for t, grid in setting.grids.items():
            found |= self._parameters(t, grid)
        return found

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


class Simulation(Simulated):
    """The same in a session."""

    def __init__(self, model: FloatModel, places: Places, reach: Mapping[str, float], threads: int):
        super().__init__(model, places, reach)
        self.session = onnxruntime.session(self.proto.SerializeToString(), threads)

    def run(self, samples: Calibration, setting: Setting) -> list[np.ndarray]:
        """Each output over all samples."""
        feeds, outputs = self.feeds(setting), self.model.outputs
        found = [self.session.run(outputs, {**batch, **feeds}) for batch in samples.batches(AT_ONCE)]
        return [np.concatenate([np.atleast_1d(np.asarray(part[i])) for part in found]) for i in range(len(outputs))]
