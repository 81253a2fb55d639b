"""Which layers mpcompile computes on integers, found by reading the network with 8 bits everywhere."""

from __future__ import annotations

import numpy as np
import onnx

from mpcompile.frontend import load
from mpcompile.ir.graph import Conv, Dense, FloatOp, Graph
from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.grids import Grid, signed, unsigned
from mpcompile.ptq.places import Places, find_places
from mpcompile.ptq.write import QuantizedWeights, to_qonnx
from mpcompile.temporary import temporary_folder


def supported_places(model: FloatModel, kept_float: dict[str, str]) -> tuple[Places, dict[str, str]]:
    """The places of layers that are read as such, and all operators that run in float beside: name → why. `kept_float`:
    layers that are to stay float."""
    refused = dict(kept_float)
    while True:
        places = find_places(model, refused)
        graph = _read(model, places)
        contracted = {n.name for n in graph.nodes if isinstance(n, (Conv, Dense))}
        in_float = {n.name: n.reason for n in graph.nodes if isinstance(n, FloatOp)}
        wrong = {
            name: in_float.get(name) or "it is not read as one" for name in places.layers if name not in contracted
        }
        if not wrong:
            return places, {**{n: w for n, w in in_float.items() if n not in places.layers}, **places.float_layers}
        refused |= wrong


def _read(model: FloatModel, places: Places) -> Graph:
    grids: dict[str, Grid] = {t: unsigned(8, 1 / 16, 128) for t in (*places.tensors, *places.helpers)}
    weights = {}
    for name, layer in places.layers.items():
        values = model.constants[layer.weight]
        shape = np.ones(values.ndim, int)
        shape[layer.axis] = values.shape[layer.axis]
        grid = signed(8, np.full(shape, max(float(np.abs(values).max()), 1e-8) / 127))
        weights[name] = QuantizedWeights(grid(values), grid)
    with temporary_folder() as folder:
        path = folder / "eight.onnx"
        onnx.save(to_qonnx(model, places, grids, weights, {}), path)
        return load(path)
