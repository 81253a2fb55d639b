"""Networks that people have, at a small size: exported by torch.onnx, quantized by ONNX Runtime, untouched by us. Read as
ONNX Runtime reads them, compiled without leaving the integers, and exact."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.exported import EXPORTED
from benchmarks.exported.quantized import write_quantized
from mpcompile.api.compile import compile_model
from mpcompile.api.verify import fused, verify
from mpcompile.frontend import load
from mpcompile.ir.graph import FloatOp, Pooling
from mpcompile.reference.interpret import codes, interpret
from tests.frontend.outside_executors import by_onnxruntime

ATTENTION = {"Gather", "LayerNormalization", "MatMul", "Softmax"}
IN_FLOAT = {
    "yolo11n": {"Add", "Concat", "MatMul", "Softmax", "Sub"},  # attention, and decoding
    "deit_tiny": {*ATTENTION, "Add", "Concat", "Split", "Transpose"},
    "text_recogniser": {*ATTENTION, "ReduceMean"},
    "ultraface": {"Concat", "Softmax"},
    "yolov8n": {"Add", "Concat", "Softmax", "Sub"},  # of the decoding of boxes
    "shufflenet_v2": {"Concat"},  # in front of each shuffle
}


PERCEPTRONS = {"tfc_w2a2", "kws_mlp_w3a3", "jets_w6a6"}
"""Of an input and three hidden layers."""
COMPILED = ("deit_tiny", "ds_cnn", "mobilenet_v3_small", "tfc_w2a2", "radioml_vgg10_w4a4", "yolov8n")
"""The others have no operator that these lack, and take their time."""


def ties_of_means(tensor: str, graph, values) -> np.ndarray:
    """Where a mean of codes lies in the middle of two: ONNX Runtime's float32 sum is a hair to one side or the other."""
    writer = {t: n for n in graph.nodes for t in n.outputs}
    source = writer[tensor].inputs[0]
    if not isinstance(writer.get(source), Pooling) or writer[source].kind == "max":
        return np.zeros(values[tensor].shape, bool)
    steps = np.asarray(values[source], np.float64) / graph.types[tensor].quantizer.spacing
    return np.abs(steps - np.floor(steps) - 0.5) < 1e-5


@pytest.mark.parametrize("name", EXPORTED)
def test_a_network_as_people_export_it(name, tmp_path):
    path = write_quantized(name, tmp_path / f"{name}.onnx", EXPORTED[name].small)
    graph = load(path)
    x = np.random.default_rng(0).standard_normal(EXPORTED[name].small, np.float32)
    theirs = by_onnxruntime(path, x)
    quantized = {t for n in graph.nodes for t in n.outputs if graph.types[t].quantizer and t in theirs}
    mine = interpret(graph, {"x": x}, given={t: theirs[t] for t in quantized})
    assert len(quantized) >= (4 if name in PERCEPTRONS else 10)
    apart = 0
    for tensor in quantized:
        quantizer = graph.types[tensor].quantizer
        steps = np.abs(codes(theirs[tensor], quantizer) - codes(mine[tensor], quantizer)) // quantizer.grid.step
        assert steps.max() <= 1, f"{tensor}: {steps.max()} steps apart"
        apart += np.count_nonzero(steps.astype(bool) & ~ties_of_means(tensor, graph, mine))
    assert apart <= 1e-4 * sum(mine[t].size for t in quantized)
    assert {n.op_type for n in fused(graph).nodes if isinstance(n, FloatOp)} == IN_FLOAT.get(name, set())
    if name not in COMPILED:
        return
    report = verify(graph, compile_model(graph, output=tmp_path / "m.mpc"), {"x": x}, threads=1)
    assert report.equal, report.summary
