"""Inputs and outputs of other types than float32, and operators on integers between them, as ONNX Runtime has them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.test_other_exporters import constant, node

F = TensorProto.FLOAT


def typed(folder, nodes, inputs: dict, outputs: dict, constants=(), opset: int = 17):
    """The file of a model; ports: name → (type, shape)."""
    ports = [[helper.make_tensor_value_info(n, t, s) for n, (t, s) in some.items()] for some in (inputs, outputs)]
    graph = helper.make_graph(nodes, "g", ports[0], ports[1], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def check_like_onnx_runtime(path, inputs: dict) -> None:
    """Every output, its type included; inputs have batch 1 in front."""
    graph = load(path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = interpret(graph, {n: x[0].astype(np.float32) for n, x in inputs.items()})
    for name, theirs in zip(graph.outputs, session.run(None, inputs)):
        assert graph.dtypes.get(name, "float32") == str(theirs.dtype), name
        np.testing.assert_allclose(found[name].astype(theirs.dtype), theirs[0], rtol=1e-5, atol=1e-6)


X = {"x": (F, [1, 6, 4])}
FORMS = {
    "index of the largest": (
        [node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)],
        {"y": (TensorProto.INT64, [1, 4])},
        [],
    ),
    "the largest and where": (
        [node("TopK", ["x", "k"], ["v", "y"], axis=1)],
        {"v": (F, [1, 2, 4]), "y": (TensorProto.INT64, [1, 2, 4])},
        [constant([2], "k", np.int64)],
    ),
    "comparison": (
        [node("Greater", ["x", "c"], ["y"])],
        {"y": (TensorProto.BOOL, [1, 6, 4])},
        [constant(0.25, "c")],
    ),
    "comparisons joined": (
        [
            node("Greater", ["x", "c"], ["a"]),
            node("Less", ["x", "d"], ["b"]),
            node("And", ["a", "b"], ["e"]),
            node("Not", ["e"], ["y"]),
            node("Where", ["e", "x", "c"], ["w"]),
        ],
        {"y": (TensorProto.BOOL, [1, 6, 4]), "w": (F, [1, 6, 4])},
        [constant(-0.25, "c"), constant(0.5, "d")],
    ),
    "cast at the end": (
        [node("Mul", ["x", "c"], ["m"]), node("Cast", ["m"], ["y"], to=TensorProto.INT32)],
        {"y": (TensorProto.INT32, [1, 6, 4])},
        [constant(20, "c")],
    ),
    "cast of a cast": (
        [
            node("Cast", ["x"], ["a"], to=TensorProto.INT64),
            node("Cast", ["a"], ["b"], to=TensorProto.INT32),
            node("Cast", ["b"], ["y"], to=TensorProto.BOOL),
            node("Cast", ["y"], ["z"], to=F),
        ],
        {"y": (TensorProto.BOOL, [1, 6, 4]), "z": (F, [1, 6, 4])},
        [],
    ),
    "index moved and counted": (
        [
            node("ArgMax", ["x"], ["a"], axis=2, keepdims=1),
            node("Transpose", ["a"], ["t"], perm=[0, 2, 1]),
            node("Identity", ["t"], ["i"]),
            node("Add", ["i", "one"], ["y"]),
        ],
        {"y": (TensorProto.INT64, [1, 1, 6])},
        [constant(1, "one", np.int64)],
    ),
    "codes": (
        [node("QuantizeLinear", ["x", "s", "z"], ["y"])],
        {"y": (TensorProto.UINT8, [1, 6, 4])},
        [constant(0.013, "s"), constant(117, "z", np.uint8)],
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_outputs(tmp_path, case):
    nodes, outputs, constants = FORMS[case]
    path = typed(tmp_path, nodes, X, outputs, constants)
    check_like_onnx_runtime(path, {"x": np.random.default_rng(3).standard_normal((1, 6, 4), np.float32)})


INPUTS = {
    "tokens": (
        [node("Gather", ["table", "ids"], ["e"]), node("ReduceMean", ["e"], ["y"], axes=[1], keepdims=0)],
        {"ids": (TensorProto.INT64, [1, 5])},
        {"y": (F, [1, 3])},
        {"ids": np.array([[0, 6, -7, 3, -1]])},
    ),
    "a mask": (
        [node("Where", ["keep", "x", "low"], ["w"]), node("Softmax", ["w"], ["y"], axis=2)],
        {**X, "keep": (TensorProto.BOOL, [1, 6, 4])},
        {"y": (F, [1, 6, 4])},
        {"x": np.ones((1, 6, 4), np.float32), "keep": np.arange(24).reshape(1, 6, 4) % 3 > 0},
    ),
    "numbers that are cast": (
        [node("Cast", ["n"], ["f"], to=F), node("Mul", ["f", "low"], ["y"])],
        {"n": (TensorProto.INT32, [1, 4])},
        {"y": (F, [1, 4])},
        {"n": np.array([[1, -5, 1 << 24, 0]], np.int32)},
    ),
    "bytes that are clipped": (
        [node("Max", ["n", "five"], ["y"])],
        {"n": (TensorProto.UINT8, [1, 4])},
        {"y": (TensorProto.UINT8, [1, 4])},
        {"n": np.array([[1, 5, 255, 6]], np.uint8)},
    ),
    "passed on": (
        [node("Identity", ["n"], ["y"])],
        {"n": (TensorProto.INT64, [1, 4])},
        {"y": (TensorProto.INT64, [1, 4])},
        {"n": np.array([[1, 5, 255, 6]])},
    ),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs(tmp_path, case):
    nodes, inputs, outputs, given = INPUTS[case]
    table = np.random.default_rng(3).standard_normal((7, 3))
    constants = [constant(table, "table"), constant(-3, "low"), constant(5, "five", np.uint8)]
    path = typed(tmp_path, nodes, inputs, outputs, constants)
    assert load(path).dtypes == {
        n: str(helper.tensor_dtype_to_np_dtype(t)) for n, (t, _) in (inputs | outputs).items() if t != F
    }
    check_like_onnx_runtime(path, given)


def test_samples_of_integers_are_told_apart(tmp_path):
    """The batch is free: whether an operator on integers mixes samples is found by running it, as for others."""
    nodes = [node("Gather", ["table", "ids"], ["e"]), node("ReduceMax", ["e"], ["y"], axes=[1], keepdims=0)]
    ports = {"ids": (TensorProto.INT64, ["N", 5])}, {"y": (F, ["N", 3])}
    assert load(typed(tmp_path, nodes, *ports, [constant(np.ones((7, 3)), "table")])).batch is None
    nodes = [node("CumSum", ["ids", "axis"], ["y"])]
    ports = {"ids": (TensorProto.INT64, ["N", 5])}, {"y": (TensorProto.INT64, ["N", 5])}
    with pytest.raises(ModelError, match=r"\(CumSum\): it mixes the samples of a batch"):
        load(typed(tmp_path, nodes, *ports, [constant(0, "axis", np.int64)]))


def test_an_index_beyond_the_end_reads_nothing_outside(tmp_path):
    """ONNX calls it an error; kernels do not look, so the nearest one is read."""
    nodes = [node("Gather", ["table", "ids"], ["y"])]
    ports = {"ids": (TensorProto.INT64, [1, 3])}, {"y": (F, [1, 3])}
    graph = load(typed(tmp_path, nodes, *ports, [constant([10, 20, 30], "table")]))
    found = interpret(graph, {"ids": np.array([99, -99, 1], np.float32)})["y"]
    np.testing.assert_array_equal(found, [30, 10, 20])


REFUSED = {
    "double": ([node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)], r"\(Cast\): a cast to DOUBLE; FLOAT would"),
    "points": (
        [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("GatherND", ["x", "i"], ["y"])],
        r"\(GatherND\): indices that are computed at run time; constants would be accepted",
    ),
    "four bits": (
        [node("QuantizeLinear", ["x", "s", "z4"], ["y"])],
        r"output y is INT4; FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, BOOL would be accepted",
    ),
    "per channel": (
        [node("QuantizeLinear", ["x", "ss", "zz"], ["y"], axis=1)],
        r"^y: codes with a scale for each channel; one scale per tensor would be accepted",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path, case):
    nodes, said = REFUSED[case]
    constants = [
        constant(0.1, "s"),
        helper.make_tensor("z4", TensorProto.INT4, [], [0]),
        constant([0.1, 0.2], "ss"),
        constant([0, 0], "zz", np.uint8),
    ]
    path = typed(tmp_path, nodes, {"x": (F, [1, 2])}, {"y": (F, [1, 2])}, constants, 21)
    with pytest.raises(ModelError, match=said):
        load(path)
