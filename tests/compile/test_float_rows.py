"""Softmax, LayerNormalization and reductions of rows of any length, against ONNX Runtime; and their ends."""

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.runtime.bundle import open_bundle
from tests.compile.test_float_ops import float_op, graph_of
from tests.kernels.harness import LEVELS

RANDOM = np.random.default_rng(0)
ROWS = {"a": (2, 3, 197), "b": (3, 64), "c": (5, 9, 3)}


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(1, 0.5, shape).astype(np.float32)


@pytest.mark.parametrize("target", ["native", *LEVELS[:2]])
def test_rows_of_any_length_are_what_onnx_runtime_computes(tmp_path, target):
    nodes, types = [], dict(ROWS)
    for name, shape in ROWS.items():
        norm = {"g": weights(shape[-1]), "h": weights(shape[-1])}
        made = {
            "softmax": float_op("Softmax", {name: shape}, {f"softmax_{name}": shape}, axis=-1),
            "log": float_op("LogSoftmax", {name: shape}, {f"log_{name}": shape}, axis=-1),
            "norm": float_op("LayerNormalization", {name: shape}, {f"norm_{name}": shape}, norm, epsilon=1e-5),
        }
        nodes += made.values()
        types |= {f"{kind}_{name}": shape for kind in made}
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"):
            axes = {"axes": np.array([-1], np.int64)} if op == "ReduceSum" else {}
            attributes = dict(keepdims=1) if op == "ReduceSum" else dict(keepdims=1, axes=[-1])
            nodes.append(float_op(op, {name: shape}, {f"{op}_{name}": (*shape[:-1], 1)}, axes, **attributes))
            types[f"{op}_{name}"] = (*shape[:-1], 1)
    wide = {"g": weights(9, 3), "h": weights(9, 3)}
    nodes.append(float_op("LayerNormalization", {"c": ROWS["c"]}, {"two": ROWS["c"]}, wide, axis=-2, epsilon=1e-3))
    types["two"] = ROWS["c"]
    graph = graph_of(nodes, types, list(ROWS), [t for t in types if t not in ROWS])
    report = verify(graph, compile_model(graph, target, tmp_path / "m.mpc"))
    assert report.equal, report.summary


def test_softmax_at_the_ends(tmp_path):
    """What is masked gets nothing at all; a NaN is seen by its row alone."""
    node = float_op("Softmax", {"x": (4, 21)}, {"y": (4, 21)}, axis=-1)
    graph = graph_of([node], {"x": (4, 21), "y": (4, 21)}, ["x"], ["y"])
    x = RANDOM.normal(size=(4, 21)).astype(np.float32)
    x[0, 3:20], x[1, 5], x[2] = -np.inf, np.nan, 3e38
    x[3, ::2] = -1e9
    with open_bundle(compile_model(graph, output=tmp_path / "m.mpc"), 1) as bundle:
        y = np.asarray(bundle.run(x)).reshape(4, 21)
    assert not y[0, 3:20].any() and not y[3, ::2].any() and np.isnan(y[1]).all()
    np.testing.assert_allclose(y[2], 1 / 21, rtol=1e-6)
    np.testing.assert_allclose(y[[0, 3]].sum(1), 1, rtol=1e-6)
