"""Files with a fixed batch above 1 whose constants have a row for each sample, as an exporter folds an Expand."""

import numpy as np
import onnxruntime
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from mpcompile.runtime.bundle import open_bundle
from tests.frontend.test_other_exporters import constant, node, saved

BATCH, TOKENS, WIDTH = 8, 5, 12
RNG = np.random.default_rng(0)


def rows(*shape: int) -> np.ndarray:
    """The same for each sample."""
    return np.repeat(RNG.normal(size=(1, *shape)), BATCH, 0).astype(np.float32)


def class_token(token: np.ndarray, positions: np.ndarray):
    nodes = [
        node("Concat", ["token", "x"], ["c"], axis=1),
        node("Add", ["c", "positions"], ["a"]),
        node("Softmax", ["a"], ["y"], axis=-1),
    ]
    return nodes, [constant(token, "token"), constant(positions, "positions")], (TOKENS + 1, WIDTH)


def quantized(*pairs: tuple[str, str]):
    """Nodes that quantize and dequantize."""
    for source, output in pairs:
        yield node("QuantizeLinear", [source, "s", "z"], [f"{output}.codes"])
        yield node("DequantizeLinear", [f"{output}.codes", "s", "z"], [output])


CASES = {
    "class token and positions": class_token(rows(1, WIDTH), rows(TOKENS + 1, WIDTH)),
    "class token, positions of one": class_token(rows(1, WIDTH), rows(TOKENS + 1, WIDTH)[:1]),
    "class token on codes": (
        [
            *quantized(("x", "xq")),
            node("DequantizeLinear", ["token", "s", "z"], ["tq"]),
            node("Concat", ["tq", "xq"], ["c"], axis=1),
            *quantized(("c", "cq")),
            node("Sin", ["cq"], ["y"]),
        ],
        [
            constant(np.rint(rows(1, WIDTH) * 20), "token", np.int8),
            constant(0.05, "s"),
            constant(3, "z", np.int8),
        ],
        (TOKENS + 1, WIDTH),
    ),
    "behind the tokens": ([node("Concat", ["x", "c"], ["y"], axis=-1)], [constant(rows(TOKENS, 3), "c")], (TOKENS, 15)),
    "a mask": (
        [node("Where", ["m", "x", "low"], ["a"]), node("Softmax", ["a"], ["y"], axis=-1)],
        [constant(rows(1, WIDTH) > -0.5, "m", bool), constant(-1e9, "low")],
        (TOKENS, WIDTH),
    ),
    "matrices": ([node("MatMul", ["x", "w"], ["y"])], [constant(rows(WIDTH, 4), "w")], (TOKENS, 4)),
    "an Expand to the file's batch": (
        [node("ReduceMax", ["x"], ["m"], axes=[1]), node("Expand", ["m", "to"], ["e"]), node("Sub", ["x", "e"], ["y"])],
        [constant([BATCH, TOKENS, WIDTH], "to", np.int64)],
        (TOKENS, WIDTH),
    ),
}
"""Nodes from x to y, constants, shape of y without batch."""


def file_of(folder, nodes, constants, shape, batch: int | str = BATCH):
    return saved(folder, nodes, {"x": [batch, TOKENS, WIDTH]}, {"y": [batch, *shape]}, constants, 17)


@pytest.mark.parametrize("case", CASES)
def test_all_samples_are_as_onnx_runtime_has_them(tmp_path, case):
    path = file_of(tmp_path, *CASES[case])
    x = RNG.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    graph = load(path)
    assert graph.batch == BATCH
    found = np.stack([interpret(graph, {"x": sample})["y"] for sample in x])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_it_is_compiled(tmp_path):
    path = file_of(tmp_path, *CASES["class token and positions"])
    x = RNG.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    with open_bundle(compile_model(path, "native", tmp_path / "m.mpc"), 1) as bundle:
        np.testing.assert_allclose(bundle.run(x), wanted, rtol=1e-5, atol=1e-6)


def test_rows_that_differ_are_refused_by_name(tmp_path):
    other = rows(1, WIDTH)
    other[3, 0, 2] += 1
    told = r"\(Concat\): its constant token differs between the 8 samples of the batch; one that is the same"
    with pytest.raises(ModelError, match=told):
        load(file_of(tmp_path, *class_token(other, rows(TOKENS + 1, WIDTH))))


def test_a_weight_with_as_many_rows_as_samples_is_one(tmp_path):
    """Axis 0 of a matrix is no batch."""
    matrix = RNG.normal(size=(BATCH, 3)).astype(np.float32)
    nodes = [
        node("Reshape", ["x", "flat"], ["f"]),
        node("Slice", ["f", "zero", "eight", "one"], ["g"]),
        node("Gemm", ["g", "w", "c"], ["h"]),
        node("MatMul", ["h", "v"], ["y"]),
    ]
    constants = [
        constant([BATCH, TOKENS * WIDTH], "flat", np.int64),
        *(constant([n], name, np.int64) for n, name in ((0, "zero"), (BATCH, "eight"), (1, "one"))),
        constant(matrix, "w"),
        constant(rows(3), "c"),
        constant(RNG.normal(size=(3, 2)), "v"),
    ]
    path = file_of(tmp_path, nodes, constants, (2,))
    x = RNG.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    found = np.stack([interpret(load(path), {"x": sample})["y"] for sample in x])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_free_batch_by_the_shape_of_an_input(tmp_path):
    nodes = [
        node("Shape", ["x"], ["n"], start=0, end=1),
        node("Concat", ["n", "rest"], ["to"], axis=0),
        node("Expand", ["token", "to"], ["t"]),
        node("Concat", ["t", "x"], ["y"], axis=1),
    ]
    constants = [constant(rows(1, WIDTH)[:1], "token"), constant([1, WIDTH], "rest", np.int64)]
    path = file_of(tmp_path, nodes, constants, (TOKENS + 1, WIDTH), "N")
    x = RNG.normal(size=(3, TOKENS, WIDTH)).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})
    found = np.stack([interpret(load(path), {"x": sample})["y"] for sample in x])
    np.testing.assert_array_equal(found, wanted)
