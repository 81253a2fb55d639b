"""QLinearGlobalAveragePool to ONNX Runtime's last bit: scales and sums for which its factor, rounded twice, decides what a
half becomes."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.frontend import load
from mpcompile.reference.run import run

CHANNELS = 32
NEAR_HALVES = [  # height, width, scale, sum and half that make the output's scale: scale·sum / (count·half)
    (1, 7, 0.0123, 333, 12.5),
    (2, 4, 0.08177, 377, 41.5),
    (3, 5, 0.0437, 1009, 17.5),
    (6, 7, 0.03137, 2711, 55.5),
    (8, 8, 0.0071, 4321, 33.5),
    (7, 7, 0.02745, 3001, 9.5),
]


def file_of(path, shape, scale, to, zero, to_zero, kind):
    """x → codes → their means as codes, the model's output → their values."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["codes"]),
        helper.make_node("QLinearGlobalAveragePool", ["codes", "s", "z", "t", "tz"], ["means"], domain="com.microsoft"),
        helper.make_node("DequantizeLinear", ["means", "t", "tz"], ["y"]),
    ]
    held = {"s": np.float32(scale), "z": kind(zero), "t": np.float32(to), "tz": kind(to_zero)}
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", [*shape[:2], 1, 1]))
    ]
    graph = helper.make_graph(
        nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(a, n) for n, a in held.items()]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


@pytest.mark.parametrize("kind, zero, to_zero", [(np.uint8, 3, 117), (np.int8, -100, 5)])
def test_means_of_codes_are_onnx_runtimes(tmp_path, kind, zero, to_zero):
    moved = 0
    for height, width, scale, total, half in NEAR_HALVES:
        count = height * width
        to = np.float32(np.float32(scale) * total / (count * half))
        path = tmp_path / "m.onnx"
        file_of(path, [1, CHANNELS, height, width], scale, to, zero, to_zero, kind)
        sums = total + np.arange(CHANNELS) - CHANNELS // 2
        codes = sums[:, None] // count + (np.arange(count) < (sums % count)[:, None])
        x = (codes * np.float32(scale)).astype(np.float32).reshape(1, CHANNELS, height, width)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        theirs = np.asarray(session.run(None, {"x": x})[0])
        graph = load(path)
        mine = run(apply_all(graph, TO_LAYERS), {"x": x[0]})["y"]
        np.testing.assert_array_equal(np.asarray(mine).reshape(-1), theirs.reshape(-1))
        moved += any(node.op == "Affine" for node in graph.nodes)
    assert moved, "at none of these would rounding the factor once have been another"
