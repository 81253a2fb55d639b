"""Channels last: QONNX's own operators, as its transformations write them, and transposes as tf2onnx writes them. They
vanish where they undo each other."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.outside_executors import by_qonnx
from tests.frontend.test_other_exporters import both, constant, node, saved

DATA = Path(__file__).parents[1] / "data"
LAST = "qonnx.custom_op.channels_last"


def operators(graph) -> list[str]:
    return [getattr(n, "op_type", n.op) for n in graph.nodes]


@pytest.mark.parametrize("name", ["brevitas_cnn_w2a2", "brevitas_residual_w3a4"])
def test_what_qonnx_makes_of_a_network(tmp_path, name):
    """Equal to the file that it was made of, node by node but for transposes at the ends."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
    from qonnx.util.cleanup import cleanup_model

    before = load(DATA / f"{name}.onnx")
    model = ModelWrapper(str(DATA / f"{name}.onnx"))
    model.set_tensor_shape(model.graph.input[0].name, [1, *before.types[before.inputs[0]].shape])
    model = cleanup_model(model).transform(ConvertToChannelsLastAndClean())
    path = tmp_path / "last.onnx"
    model.save(str(path))
    assert any(n.domain == LAST and n.op_type == "Conv" for n in model.graph.node)
    graph = load(path)
    convs = [operators(g).count("Conv") for g in (before, graph)]
    assert convs[0] == convs[1] > 0 and operators(graph).count("Transpose") <= 2
    x = np.load(DATA / f"{name}.npz")
    sample = np.random.default_rng(0).standard_normal(before.types[before.inputs[0]].shape).astype(np.float32)
    assert len(x.files)
    turned = sample if graph.types[graph.inputs[0]].shape == sample.shape else np.moveaxis(sample, 0, -1)
    mine = interpret(graph, {graph.inputs[0]: turned})[graph.outputs[0]]
    theirs = by_qonnx(path, turned)[graph.outputs[0]]
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def keras_like(folder, between):
    """Two quantized convolutions over NHWC, each between transposes, `between` in NHWC."""
    rng = np.random.default_rng(1)
    nodes = [
        node("Transpose", ["x"], ["x1"], perm=[0, 3, 1, 2]),
        node("QuantizeLinear", ["x1", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w1", "ws"], ["wd1"]),
        node("Conv", ["xd", "wd1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Transpose", ["c1"], ["t1"], perm=[0, 2, 3, 1]),
        *between,
        node("Transpose", ["e"], ["t2"], perm=[0, 3, 1, 2]),
        node("DequantizeLinear", ["w2", "ws"], ["wd2"]),
        node("Conv", ["t2", "wd2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Transpose", ["c2"], ["y"], perm=[0, 2, 3, 1]),
    ]
    constants = [
        constant(0.05, "s"),
        constant(10, "z", np.uint8),
        constant(rng.integers(-60, 60, (4, 3, 3, 3)), "w1", np.int8),
        constant(rng.integers(-60, 60, (4, 4, 3, 3)), "w2", np.int8),
        constant(0.0137, "ws"),
        constant(0.5, "half"),
    ]
    return saved(folder, nodes, {"x": [1, 6, 5, 3]}, {"y": [1, 6, 5, 4]}, constants)


QUANTIZED = [
    node("QuantizeLinear", ["r", "s", "z"], ["q"]),
    node("DequantizeLinear", ["q", "s", "z"], ["e"]),
]
BETWEEN = {
    "relu": [node("Relu", ["t1"], ["r"]), *QUANTIZED],
    "residual": [
        node("Relu", ["t1"], ["a"]),
        node("LeakyRelu", ["t1"], ["b"], alpha=0.25),
        node("Add", ["a", "b"], ["c"]),
        node("Mul", ["c", "half"], ["r"]),
        *QUANTIZED,
    ],
    "clipped codes": [
        node("Clip", ["t1", "", "half"], ["r"]),
        node("QuantizeLinear", ["r", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Mul", ["d", "half"], ["e"]),
    ],
}


@pytest.mark.parametrize("case", BETWEEN)
def test_transposes_between_convolutions_vanish(tmp_path, case):
    path = keras_like(tmp_path, BETWEEN[case])
    graph = load(path)
    assert operators(graph).count("Conv") == 2 and operators(graph).count("Transpose") == 2
    assert not any(n.op == "FloatOp" for n in graph.nodes)
    mine, theirs = both(path, np.random.default_rng(2).uniform(-1, 5, (1, 6, 5, 3)).astype(np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_another_transpose_stays(tmp_path):
    nodes = [
        node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
        node("Relu", ["a"], ["b"]),
        node("Transpose", ["b"], ["y"], perm=[0, 2, 3, 1]),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 2, 3, 4]}, {"y": [1, 4, 2, 3]}, [])
    assert operators(load(path)) == ["Transpose", "Clip", "Transpose"]
    mine, theirs = both(path, np.random.default_rng(2).standard_normal((1, 2, 3, 4), np.float32))
    np.testing.assert_array_equal(mine, theirs)


def test_what_both_sides_read_is_right_on_both(tmp_path):
    nodes = [
        node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
        node("Relu", ["a"], ["y"]),
        node("Transpose", ["y"], ["z"], perm=[0, 3, 1, 2]),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 2, 3, 4]}, {"y": [1, 3, 4, 2], "z": [1, 2, 3, 4]}, [])
    x = np.random.default_rng(2).standard_normal((2, 3, 4)).astype(np.float32)
    found = interpret(load(path), {"x": x})
    np.testing.assert_array_equal(found["z"], np.maximum(x, 0))
    np.testing.assert_array_equal(found["y"], np.maximum(x, 0).transpose(1, 2, 0))


@pytest.mark.parametrize(
    "operator, shape, said",
    [
        (
            node("Gemm", ["x", "x"], ["y"], "odd", domain=LAST),
            [1, 3, 3, 2],
            r"an operator of domain .*; Conv, MaxPool",
        ),
        (
            node("MaxPool", ["x"], ["y"], "odd", domain=LAST),
            [1, 3],
            r"channels last of 2 axes; 3 or more would be",
        ),
    ],
)
def test_what_is_refused(tmp_path, operator, shape, said):
    path = saved(tmp_path, [operator], {"x": shape}, {"y": shape}, [], 17, [LAST])
    with pytest.raises(ModelError, match=rf"^node odd \({operator.op_type}\): {said}"):
        load(path)
