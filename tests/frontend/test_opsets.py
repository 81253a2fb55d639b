"""Operators as every opset from 7 writes them, attributes that became inputs above all; and every form of a Constant. Each
against ONNX Runtime."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.test_other_exporters import constant, node, saved

NEWEST = onnx.defs.onnx_opset_version()
RUNS = 26
"""The newest opset that ONNX Runtime takes; onnx's own evaluator is the witness beyond."""
X = (1, 4, 6, 6)


def ints(value, name: str):
    return constant(value, name, np.int64)


def since(opset: int, first: int, **attributes) -> dict:
    """Attributes that an operator has below opset `first`."""
    return attributes if opset < first else {}


def squeezed(opset: int):
    return [
        node("GlobalMaxPool", ["x"], ["a"]),
        node("Squeeze", ["a"] if opset < 13 else ["a", "back"], ["b"], **since(opset, 13, axes=[2, 3])),
        node("Unsqueeze", ["b"] if opset < 13 else ["b", "front"], ["y"], **since(opset, 13, axes=[1])),
    ], [ints([2, 3], "back"), ints([1], "front")]


def clip(opset: int):
    inputs = ["x"] if opset < 11 else ["x", "low", "high"]
    return [node("Clip", inputs, ["y"], **since(opset, 11, min=-0.5, max=0.75))], [
        constant(-0.5, "low"),
        constant(0.75, "high"),
    ]


def clip_above(opset: int):
    return [node("Clip", ["x"] if opset < 11 else ["x", "", "high"], ["y"], **since(opset, 11, max=0.75))], [
        constant(0.75, "high")
    ]


def cut(opset: int):
    inputs = ["x"] if opset < 10 else ["x", "starts", "ends", "axes"]
    return [node("Slice", inputs, ["y"], **since(opset, 10, starts=[1, -4], ends=[3, 6], axes=[1, 3]))], [
        ints([1, -4], "starts"),
        ints([3, 6], "ends"),
        ints([1, 3], "axes"),
    ]


def parts(opset: int):
    inputs = ["x"] if opset < 13 else ["x", "sizes"]
    return [
        node("Split", inputs, ["a", "b"], axis=1, **since(opset, 13, split=[1, 3])),
        node("Concat", ["b", "a"], ["y"], axis=1),
    ], [ints([1, 3], "sizes")]


def halves(opset: int):
    more = {} if opset < 18 else {"num_outputs": 2}
    return [node("Split", ["x"], ["a", "b"], axis=1, **more), node("Sub", ["a", "b"], ["y"])], []


def padded(opset: int):
    inputs = ["x"] if opset < 11 else ["x", "pads", "fill"]
    pads = [0, 0, 1, 0, 0, 0, 2, 1]
    return [node("Pad", inputs, ["y"], mode="constant", **since(opset, 11, pads=pads, value=0.5))], [
        ints(pads, "pads"),
        constant(0.5, "fill"),
    ]


def reduced(op: str, first: int) -> Callable:
    def make(opset: int):
        inputs = ["x"] if opset < first else ["x", "axes"]
        return [node(op, inputs, ["y"], keepdims=1, **since(opset, first, axes=[2]))], [ints([2], "axes")]

    return make


def enlarged(*by: float) -> Callable:
    """Below opset 11 with the coordinates of an Upsample."""

    def make(opset: int):
        scales = constant([1, *by], "scales")
        if opset < 9:
            return [node("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, *by])], []
        if opset < 10:
            return [node("Upsample", ["x", "scales"], ["y"], mode="nearest")], [scales]
        if opset < 11:
            return [node("Resize", ["x", "scales"], ["y"], mode="nearest")], [scales]
        where = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return [node("Resize", ["x", "roi", "scales"], ["y"], mode="nearest", **where)], [scales, constant([], "roi")]

    return make


def dropped(opset: int):
    inputs = ["x"] if opset < 12 else ["x", "ratio"]
    return [node("Dropout", inputs, ["a"], **since(opset, 12, ratio=0.25)), node("Relu", ["a"], ["y"])], [
        constant(0.25, "ratio")
    ]


def normalized(opset: int):
    rng = np.random.default_rng(1)
    values = {"g": rng.normal(1, 0.1, 4), "b": rng.normal(size=4), "m": rng.normal(size=4), "v": rng.uniform(0.5, 2, 4)}
    return [node("BatchNormalization", ["x", *values], ["y"])], [constant(v, n) for n, v in values.items()]


def shares(opset: int):
    return [node("Softmax", ["x"], ["y"])], []  # below 13 over all axes from 1 on, then over the last


def product(opset: int):
    nodes = [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w"] if opset >= 11 else ["f", "w", "c"], ["y"])]
    return nodes, [constant(np.random.default_rng(1).normal(0, 0.1, (144, 3)), "w"), constant(np.zeros(3), "c")]


def largest(opset: int):
    inputs = ["x"] if opset < 10 else ["x", "k"]
    nodes = [node("TopK", inputs, ["y", "at"], axis=3, **since(opset, 10, k=2))]
    return nodes, [ints([2], "k")]


def averaged(opset: int):
    return [node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], []


def leaky(opset: int):
    return [node("PRelu", ["x", "slope"], ["y"])], [constant([[[0.1]], [[0.2]], [[0.3]], [[0.4]]], "slope")]


FORMS = {
    "Squeeze": squeezed,
    "Clip": clip,
    "Clip above": clip_above,
    "Slice": cut,
    "Split": parts,
    "Split in two": halves,
    "Pad": padded,
    "ReduceSum": reduced("ReduceSum", 13),
    "ReduceMean": reduced("ReduceMean", 18),
    "ReduceMax": reduced("ReduceMax", 18),
    "Resize": enlarged(1, 2, 2),
    "Resize by thirds": enlarged(1, 4 / 3, 5 / 3),
    "Resize of channels": enlarged(1.01, 2, 1),
    "Dropout": dropped,
    "BatchNormalization": normalized,
    "Softmax": shares,
    "Gemm": product,
    "TopK": largest,
    "AveragePool": averaged,
    "PRelu": leaky,
}


def check(path, x: np.ndarray) -> None:
    graph = load(path)
    mine = interpret(graph, {"x": x[0]})["y"]
    theirs = (by_onnxruntime if graph_opset(path) <= RUNS else by_onnx)(path, x)
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def graph_opset(path) -> int:
    return next(o.version for o in onnx.load(path).opset_import if not o.domain)


def by_onnx(path, x: np.ndarray) -> np.ndarray:
    return np.asarray(ReferenceEvaluator(str(path)).run(["y"], {"x": x})[0])[0]


def by_onnxruntime(path, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0][0]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_in_every_opset(tmp_path, form):
    x = np.random.default_rng(0).standard_normal(X, np.float32)
    for opset in range(7, NEWEST + 1):
        nodes, constants = FORMS[form](opset)
        read = {name for n in nodes for name in n.input}
        constants = [c for c in constants if c.name in read]
        path = saved(tmp_path, nodes, {"x": X}, {"y": None}, constants, opset)
        try:
            check(path, x)
        except AssertionError as error:
            raise AssertionError(f"opset {opset}: {error}") from error


CONSTANTS = {
    "value": ({"value": constant([1, 2, 3, 4], "v")}, 7),
    "value of integers": ({"value": ints([1, 2, 3, 4], "v")}, 7),
    "value_float": ({"value_float": 1.5}, 12),
    "value_floats": ({"value_floats": [1.0, 2.0, 3.0, 4.0]}, 12),
    "value_int": ({"value_int": 3}, 12),
    "value_ints": ({"value_ints": [1, 2, 3, 4]}, 12),
}


@pytest.mark.parametrize("form", CONSTANTS)
def test_a_constant_of_every_form(tmp_path, form):
    attributes, opset = CONSTANTS[form]
    nodes = [
        node("Constant", [], ["c"], **attributes),
        node("Cast", ["c"], ["f"], to=onnx.TensorProto.FLOAT),
        node("Add", ["x", "f"], ["y"]),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 3, 4]}, {"y": [1, 3, 4]}, [], opset)
    check(path, np.random.default_rng(0).standard_normal((1, 3, 4), np.float32))


def test_a_sparse_constant_is_refused(tmp_path):
    values = numpy_helper.from_array(np.array([5, 7], np.float32), "v")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([0, 2], np.int64), "i"), [4])
    nodes = [node("Constant", [], ["c"], sparse_value=sparse), node("Add", ["x", "c"], ["y"])]
    path = saved(tmp_path, nodes, {"x": [1, 3, 4]}, {"y": [1, 3, 4]}, [])
    with pytest.raises(ModelError, match=r"m\.onnx holds a sparse tensor; a dense one would be accepted$"):
        load(path)


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23, NEWEST])
def test_quantizers_in_every_opset(tmp_path, opset):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["w"]),
        node("Conv", ["d", "w"], ["y"], kernel_shape=[3, 3]),
    ]
    constants = [
        constant(0.03, "s"),
        constant(117, "z", np.uint8),
        constant(np.random.default_rng(0).integers(-60, 60, (2, 4, 3, 3)), "wq", np.int8),
        constant(0.01, "ws"),
        constant(0, "wz", np.int8),
    ]
    path = saved(tmp_path, nodes, {"x": X}, {"y": None}, constants, opset)
    assert [n.op for n in load(path).nodes] == ["Quantize", "Conv"]
    check(path, np.random.default_rng(0).standard_normal(X, np.float32))


def handed_on(name: str) -> onnx.AttributeProto:
    """An attribute whose value is the function's own `slope`."""
    return onnx.AttributeProto(name=name, type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")


def test_a_function_of_the_file_s_own(tmp_path):
    """As PyTorch's exporters write modules: a local function that calls another, with an attribute handed on."""
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(handed_on("alpha"))
    own = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    inner = helper.make_function("own", "Inner", ["a"], ["b"], [leaky], own, ["slope"])
    calls = node("Inner", ["u"], ["v"], domain="own")
    calls.attribute.append(handed_on("slope"))
    outer = helper.make_function("own", "Outer", ["u"], ["w"], [calls, node("Neg", ["v"], ["w"])], own, ["slope"])
    graph = helper.make_graph(
        [node("Outer", ["x"], ["y"], domain="own", slope=0.25)],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 5])],
    )
    model = helper.make_model(graph, opset_imports=own, functions=[inner, outer], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    check(tmp_path / "m.onnx", np.linspace(-2, 2, 5, dtype=np.float32)[None])
