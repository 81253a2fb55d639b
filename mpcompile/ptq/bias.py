"""Bias correction: layer by layer, in the file's order, the mean of each output channel is brought back to the float
network's, with all that is quantized before it.

    b' = b + mean over samples and places of (y − ŷ)
"""

from __future__ import annotations

import numpy as np

from mpcompile.ptq.calibration import Calibration
from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.observe import Progress
from mpcompile.ptq.places import Places
from mpcompile.ptq.simulate import Setting, Simulation


def biases(model: FloatModel, places: Places) -> dict[str, str]:
    """Layer → the constant that is its bias, of layers that have one."""
    return {
        n.name: n.input[2]
        for n in model.proto.graph.node
        if n.name in places.layers and len(n.input) > 2 and n.input[2] in model.constants
    }


def corrected(
    simulation: Simulation, samples: Calibration, setting: Setting, constants: dict[str, str], tell: Progress
) -> dict[str, np.ndarray]:
    """Constant → float32 [O], of each layer's bias in `constants` (`biases`). The simulation gives the layers' outputs."""
    model = simulation.model
    output = {n.name: n.output[0] for n in model.proto.graph.node if n.name in constants}
    expected = simulation.means(samples, Setting({}, {}), output.values())
    found: dict[str, np.ndarray] = {}
    for done, (layer, constant) in enumerate(constants.items()):
        tell("bias correction", done, len(constants))
        got = simulation.means(samples, setting.but(constants=found), [output[layer]])[output[layer]]
        off = expected[output[layer]] - got
        found[constant] = (model.constants[constant] + off).astype(np.float32)
    tell("bias correction", len(constants), len(constants))
    return found
