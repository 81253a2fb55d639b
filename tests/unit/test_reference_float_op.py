"""Operators in float: their reference is ONNX Runtime's, where it is installed, or onnx's own."""

import builtins

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp
from mpcompile.reference import float_op
from mpcompile.reference.float_op import run_float_op


def node(op: str, shape, opset: int = 17, weights: dict | None = None, **attributes) -> FloatOp:
    made = helper.make_node(op, ["x", *(weights or {})], ["y"], name="odd", **attributes)
    graph = helper.make_graph(
        [made],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, name) for name, w in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return FloatOp("odd", ["x"], ["y"], op, model.SerializeToString())


@pytest.fixture
def without_onnxruntime(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "onnxruntime":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    float_op._loaded.cache_clear()
    yield
    float_op._loaded.cache_clear()


def test_grouped_transposed_convolution():
    """By hand: stride 2 and a 2×2 kernel, so that every output has one product for each channel of its group."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3, 3)).astype(np.float32), rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    (y,) = run_float_op(node("ConvTranspose", (4, 3, 3), weights={"w": w}, group=2, strides=[2, 2]), [x])
    wanted = np.zeros((6, 6, 6), np.float32)
    for out in range(6):
        for c in (0, 1) if out < 3 else (2, 3):
            wanted[out] += np.kron(x[c], w[c, out % 3])
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


def test_softmax_below_opset_13_is_over_all_that_follows_its_axis():
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    (y,) = run_float_op(node("Softmax", (3, 4, 5), opset=11, axis=1), [x])
    np.testing.assert_allclose(y, np.exp(x) / np.exp(x).sum(), rtol=1e-5)


def test_local_response_normalisation():
    x = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32)
    (y,) = run_float_op(node("LRN", (5, 2, 2), size=3, alpha=0.5, beta=0.75, bias=2.0), [x])
    padded = np.pad(x**2, ((1, 1), (0, 0), (0, 0)))
    square = padded[:-2] + padded[1:-1] + padded[2:]
    np.testing.assert_allclose(y, x / (2 + 0.5 / 3 * square) ** 0.75, rtol=1e-5)


def test_onnx_s_own_where_onnxruntime_is_not_installed(without_onnxruntime):
    x = np.array([-1.0, 2.0], np.float32)
    (y,) = run_float_op(node("Elu", (2,)), [x])
    np.testing.assert_allclose(y, [np.exp(-1) - 1, 2], rtol=1e-6)


def test_an_operator_that_neither_knows_is_named(without_onnxruntime):
    with pytest.raises(
        ModelError, match=r"node odd \(GlobalLpPool\): there is no reference for it: .*onnxruntime=="
    ) as e:
        run_float_op(node("GlobalLpPool", (4, 3, 3)), [np.ones((4, 3, 3), np.float32)])
    assert "\n" not in str(e.value)
