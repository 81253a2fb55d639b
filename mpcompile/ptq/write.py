"""The quantized network as QONNX: IntQuant before layers and over weights, everything else as in the float file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.places import Places
from mpcompile.ptq.rewire import rewired

QONNX, QONNX_OPSET, IR_VERSION = "qonnx.custom_op.general", 1, 10


@dataclass(frozen=True)
class QuantizedWeights:
    """`values`: float32, on `grid` already."""

    values: np.ndarray
    grid: Grid


def to_qonnx(
    model: FloatModel,
    places: Places,
    grids: Mapping[str, Grid],
    weights: Mapping[str, QuantizedWeights],
    constants: Mapping[str, np.ndarray],
) -> onnx.ModelProto:
    """grids: of each quantized tensor; weights: of each layer; constants: others that changed (biases). Nodes keep their
    names; a tensor's quantizer is called as the tensor, with ".quantized"."""
    added: list[onnx.TensorProto] = []

    def int_quant(x: str, output: str, grid: Grid) -> onnx.NodeProto:
        parts = {"scale": grid.scale, "zero": np.float32(grid.zero), "bits": np.float32(grid.bits)}
        for what, value in parts.items():
            array = np.asarray(value, np.float32)
            added.append(numpy_helper.from_array(array.reshape(()) if array.size == 1 else array, f"{output}.{what}"))
        names = [f"{output}.{what}" for what in parts]
        attributes = {"signed": int(grid.signed), "narrow": 0, "rounding_mode": "ROUND"}
        return helper.make_node("IntQuant", [x, *names], [output], name=output, domain=QONNX, **attributes)

    quantizers = {}
    for name, found in weights.items():
        stored = f"{name}.weight.values"
        added.append(numpy_helper.from_array(np.ascontiguousarray(found.values, np.float32), stored))
        quantizers[name] = [int_quant(stored, f"{name}.weight", found.grid)]
    proto = rewired(model, places, lambda t, output: [int_quant(t, output, grids[t])], quantizers)
    used = {t for node in proto.graph.node for t in node.input} | {o.name for o in proto.graph.output}
    kept = [t for t in proto.graph.initializer if t.name in used]
    for t in kept:
        if t.name in constants:
            t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(constants[t.name], np.float32), t.name))
    del proto.graph.initializer[:], proto.graph.value_info[:]
    proto.graph.initializer.extend([*kept, *added])
    proto.opset_import.append(helper.make_opsetid(QONNX, QONNX_OPSET))
    proto.ir_version = IR_VERSION
    proto.producer_name = "mpcompile"
    return proto
