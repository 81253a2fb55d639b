"""Files whose scales are computed at run time, as ONNX Runtime's quantize_dynamic writes them; and other contractions of
integers. Weights of 7 bits where ONNX Runtime is the witness: on CPUs without VNNI its products of uint8 by int8 saturate
at 16 bits. onnx's own evaluator takes any."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import QuantType, quantize_dynamic

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.test_other_exporters import both, constant, float_network, node, saved


def contractions(graph) -> list[str]:
    """What is contracted in integers, and what in float, in order."""
    return [
        getattr(n, "op_type", n.op) for n in graph.nodes if getattr(n, "op_type", n.op) in ("Conv", "Dense", "MatMul")
    ]


def by_onnx(path, x):
    return ReferenceEvaluator(str(path)).run(None, {"x": x})[0][0]


@pytest.mark.parametrize("weights", [QuantType.QInt8, QuantType.QUInt8])
def test_a_network_quantized_dynamically(tmp_path, weights):
    rng = np.random.default_rng(4)
    path = tmp_path / "d.onnx"
    quantize_dynamic(float_network(tmp_path), path, weight_type=weights, reduce_range=True)
    assert {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"} <= {n.op_type for n in onnx.load(path).graph.node}
    assert contractions(load(path)) == ["Conv", "Conv", "Dense"]
    assert all(n.weight.grid.bits <= 8 for n in load(path).nodes if n.op in ("Conv", "Dense"))
    for size in (0, 0.1, 1, 30):
        mine, theirs = both(path, size * rng.standard_normal((1, 3, 8, 8), np.float32))
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [[8], [5, 8], [3, 5, 8]])
def test_products_over_vectors_and_over_rows(tmp_path, shape, per_channel):
    """All 8 bits, against onnx's evaluator: equal to the last bit, since every sum is an integer below 2^24."""
    rng = np.random.default_rng(6)
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "b"], ["r"]),
        node("Relu", ["r"], ["q"]),
        node("MatMul", ["q", "w2"], ["y"]),
    ]
    constants = [constant(rng.normal(0, 0.3, s), name) for name, s in {"w": (8, 16), "b": (16,), "w2": (16, 4)}.items()]
    quantize_dynamic(
        saved(tmp_path, nodes, {"x": ["N", *shape]}, {"y": ["N", *shape[:-1], 4]}, constants),
        tmp_path / "d.onnx",
        per_channel=per_channel,
    )
    graph = load(tmp_path / "d.onnx")
    assert contractions(graph) == ["Dense" if len(shape) == 1 else "Conv"] * 2
    x = rng.standard_normal((1, *shape), np.float32)
    np.testing.assert_array_equal(interpret(graph, {"x": x[0]})["y"], by_onnx(tmp_path / "d.onnx", x))


def integers(rng, shape, zero: int = 0):
    return [constant(rng.integers(-63, 64, shape), "w", np.int8), constant(zero, "wz", np.int8)]


@pytest.mark.parametrize("zero", [0, -3])
def test_one_quantizer_for_convolutions_of_different_borders(tmp_path, zero):
    """Around a map lie real zeros, which are the code z: another one in every sample."""
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["u", "s", "z"]),
        node("ConvInteger", ["u", "w", "z", "wz"], ["a"], pads=[1, 0, 2, 1], strides=[2, 1]),
        node("ConvInteger", ["u", "w", "z", "wz"], ["b"], strides=[1, 1]),
        node("Cast", ["a"], ["af"], to=TensorProto.FLOAT),
        node("Cast", ["b"], ["bf"], to=TensorProto.FLOAT),
        node("GlobalAveragePool", ["bf"], ["p"]),
        node("Add", ["af", "p"], ["t"]),
        node("Mul", ["t", "s"], ["y"]),
    ]
    rng = np.random.default_rng(8)
    path = saved(tmp_path, nodes, {"x": [1, 2, 7, 6]}, {"y": [1, 3, 4, 5]}, integers(rng, (3, 2, 3, 3), zero))
    for low, high in ((-1, 3), (0.5, 2), (-4, -1)):
        mine, theirs = both(path, rng.uniform(low, high, (1, 2, 7, 6)).astype(np.float32))
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max())


def test_a_convolution_along_one_axis_in_groups(tmp_path):
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["u", "s", "z"]),
        node("ConvInteger", ["u", "w", "z"], ["a"], pads=[2, 2], group=2, dilations=[2]),
        node("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    rng = np.random.default_rng(8)
    path = saved(tmp_path, nodes, {"x": [1, 4, 9]}, {"y": [1, 6, 9]}, integers(rng, (6, 2, 3))[:1])
    mine, theirs = both(path, rng.standard_normal((1, 4, 9), np.float32))
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", ["codes", "input"])
def test_contractions_of_integers_whose_scale_is_known(tmp_path, kind):
    """Codes of a QuantizeLinear, or the model's own uint8: no float operator is left."""
    nodes = [
        *([node("QuantizeLinear", ["x", "s", "z"], ["u"])] if kind == "codes" else []),
        node("ConvInteger", ["u" if kind == "codes" else "x", "w", "z", "wz"], ["a"], pads=[1, 1, 1, 1]),
        node("Cast", ["a"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["f", "s"], ["y"]),
    ]
    rng = np.random.default_rng(8)
    constants = [*integers(rng, (3, 2, 3, 3), 1), constant(0.03, "s"), constant(99, "z", np.uint8)]
    path = saved(tmp_path, nodes, {"x": [1, 2, 5, 5]}, {"y": [1, 3, 5, 5]}, constants)
    x = rng.normal(0, 2, (1, 2, 5, 5)).astype(np.float32)
    if kind == "input":
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        onnx.save(model, path)
        x = rng.integers(0, 256, x.shape).astype(np.uint8)
    assert not [n for n in load(path).nodes if n.op == "FloatOp"]
    mine, theirs = both(path, x)
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-5)


FUSED = {
    "DynamicQuantizeMatMul": ["x", "w", "ws", "wz", "b"],
    "DynamicQuantizeMatMul without bias": ["x", "w", "ws", "wz"],
    "MatMulIntegerToFloat": ["u", "w", "s", "ws", "z", "wz", "b"],
    "MatMulIntegerToFloat without zero points": ["u", "w", "s", "ws", "", "", "b"],
}


@pytest.mark.parametrize("form", FUSED)
def test_what_onnx_runtime_fuses_these_to(tmp_path, form):
    """Its domain, in models that it optimised and saved."""
    op, inputs = form.split()[0], FUSED[form]
    rng = np.random.default_rng(8)
    nodes = [node(op, inputs, ["y"], domain="com.microsoft")]
    if "u" in inputs:
        nodes.insert(0, node("QuantizeLinear", ["x", "s", "z"], ["u"]))
    constants = [
        *integers(rng, (8, 4)),
        constant(0.02, "ws"),
        constant(rng.standard_normal(4), "b"),
        constant(0.04, "s"),
        constant(0 if "" in inputs else 70, "z", np.uint8),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 5, 8]}, {"y": [1, 5, 4]}, constants, 17, ["com.microsoft"])
    assert contractions(load(path)) == ["Conv"]
    mine, theirs = both(path, rng.standard_normal((1, 5, 8), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_dynamic_quantizer_that_is_dequantized(tmp_path):
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["u", "s", "z"]),
        node("DequantizeLinear", ["u", "s", "z"], ["d"]),
        node("Relu", ["d"], ["y"]),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 9]}, {"y": [1, 9]}, [])
    mine, theirs = both(path, np.linspace(-1, 3, 9, dtype=np.float32)[None])
    np.testing.assert_array_equal(mine, theirs)


REFUSED = {
    "another zero point": (
        [node("MatMulInteger", ["u", "w", "wz"], ["a"])],
        1,
        r"a \(MatMulInteger\): a zero point of something else than its codes; the one of the quantizer in front",
    ),
    "another scale": (
        [node("DequantizeLinear", ["u", "fixed", "z"], ["f"])],
        1,
        r"a \(DequantizeLinear\): a scale or zero point of something else than its codes",
    ),
    "a batch": (
        [node("MatMulInteger", ["u", "w", "z"], ["a"])],
        4,
        r"q \(DynamicQuantizeLinear\): one scale over a batch of 4; a batch of 1, or a dynamic one",
    ),
    "weights of run time": (
        [node("MatMulInteger", ["u", "u", "z"], ["a"])],
        1,
        r"a \(MatMulInteger\): weights or their zero point are computed at run time; constants would be accepted",
    ),
    "weights of another width": (
        [node("MatMulInteger", ["u", "v", "z"], ["a"])],
        1,
        r"a \(MatMulInteger\): weights for 3 inputs over a tensor of shape \[8\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_by_name(tmp_path, case):
    operators, batch, said = REFUSED[case]
    operators[0].name = "a"
    nodes = [node("DynamicQuantizeLinear", ["x"], ["u", "s", "z"], name="q"), *operators]
    if operators[0].output[0] == "a":
        nodes.append(node("Cast", ["a"], ["f"], to=TensorProto.FLOAT))
    nodes.append(node("Mul", ["f", "s"], ["y"]))
    constants = [
        *integers(np.random.default_rng(0), (8, 4)),
        constant(np.ones((3, 4)), "v", np.int8),
        constant(0.5, "fixed"),
    ]
    path = saved(tmp_path, nodes, {"x": [batch, 8]}, {"y": [batch, 4]}, constants)
    with pytest.raises(ModelError, match=said):
        load(path)
