"""Files whose batch is fixed to 1: axis 0 may be moved, between operators that run in float."""

import numpy as np
import pytest
from onnx import TensorProto

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.outside_executors import by_qonnx
from tests.frontend.test_other_exporters import QONNX, both, constant, node, saved


def attention(folder, shape, quantized=()):
    """Two heads over rows of 24, query, key and value side by side in front; `quantized`: nodes from k1 to k2."""
    rows = shape[1]
    nodes = [
        node("Reshape", ["x", "apart"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[2, 0, 3, 1, 4]),
        node("Split", ["t"], ["q", "k", "v"], axis=0),
        *(node("Squeeze", [n, "first"], [f"{n}1"]) for n in "qkv"),
        *(quantized or [node("Identity", ["k1"], ["k2"])]),
        node("Transpose", ["k2"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q1", "kt"], ["l"]),
        node("Softmax", ["l"], ["p"], axis=-1),
        node("MatMul", ["p", "v1"], ["o"]),
        node("Transpose", ["o"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "joined"], ["y"]),
    ]
    constants = [
        constant([shape[0] if isinstance(shape[0], int) else -1, rows, 3, 2, 4], "apart", np.int64),
        constant([0], "first", np.int64),
        constant([1, rows, 8], "joined", np.int64),
        constant(0.05, "s"),
        constant(3, "z", np.int8),
    ]
    return saved(folder, nodes, {"x": shape}, {"y": [shape[0], rows, 8]}, constants, 17)


QUANTIZED = [
    node("QuantizeLinear", ["k1", "s", "z"], ["kq"]),
    node("DequantizeLinear", ["kq", "s", "z"], ["k2"]),
]


@pytest.mark.parametrize("quantized", [(), QUANTIZED])
def test_attention(tmp_path, quantized):
    path = attention(tmp_path, [1, 5, 24], quantized)
    mine, theirs = both(path, np.random.default_rng(0).standard_normal((1, 5, 24), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_free_batch_is_not_moved(tmp_path):
    with pytest.raises(
        ModelError, match=r"\(Transpose\): it moves elements across the batch; .* or a batch of 1, would be"
    ):
        load(attention(tmp_path, ["N", 5, 24]))


FRONTS = {
    "quantizers": [
        node("QuantizeLinear", ["t", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["e"]),
    ],
    "arithmetic": [node("Relu", ["t"], ["a"]), node("Mul", ["a", "s"], ["b"]), node("Add", ["b", "t"], ["e"])],
    "an index": [
        node("ArgMax", ["t"], ["a"], axis=2, keepdims=1),
        node("Cast", ["a"], ["f"], to=TensorProto.FLOAT),
        node("Sub", ["t", "f"], ["e"]),
    ],
    "all in one": [
        node("Reshape", ["t", "all"], ["a"]),
        node("Softmax", ["a"], ["b"], axis=0),
        node("Shape", ["t"], ["n"]),
        node("Reshape", ["b", "n"], ["e"]),
    ],
    "concat": [node("Concat", ["t", "t"], ["a"], axis=0), node("Slice", ["a", "two", "five"], ["e"])],
}


@pytest.mark.parametrize("case", FRONTS)
def test_operators_on_tensors_without_a_batch(tmp_path, case):
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 2, 0]),
        *FRONTS[case],
        node("Transpose", ["e"], ["y"], perm=[2, 0, 1]),
    ]
    constants = [
        constant(0.05, "s"),
        constant(3, "z", np.int8),
        constant([-1], "all", np.int64),
        constant([2], "two", np.int64),
        constant([5], "five", np.int64),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 3, 4]}, {"y": [1, 3, 4]}, constants)
    mine, theirs = both(path, np.random.default_rng(0).standard_normal((1, 3, 4), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_qonnxs_quantizers_on_tensors_without_a_batch(tmp_path):
    """As Brevitas's QuantMultiheadAttention has them."""
    quant = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", "domain": QONNX}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("Quant", ["t", "s", "zero", "bits"], ["q"], "quant", **quant),
        node("Transpose", ["q"], ["y"], perm=[1, 0, 2]),
    ]
    constants = [constant(v, n) for n, v in {"s": 0.1, "zero": 0, "bits": 4}.items()]
    path = saved(tmp_path, nodes, {"x": [1, 3, 4]}, {"y": [1, 3, 4]}, constants, 17, [QONNX])
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(interpret(load(path), {"x": x})["y"], by_qonnx(path, x)["y"], rtol=1e-6)
