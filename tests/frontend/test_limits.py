"""Small files that ask for much, deep ones, odd ones: read in time that is linear in the file, or refused in one line."""

import itertools
import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpcompile.errors import ModelError
from mpcompile.frontend import limits, load
from tests.frontend.test_other_exporters import constant, node, saved

LOCAL = "local"


def chain(count: int, step) -> list:
    """Nodes from x to y, each step(input, output)."""
    names = ["x", *(f"t{i}" for i in range(1, count)), "y"]
    return [step(a, b) for a, b in itertools.pairwise(names)]


def test_doubled_concats(tmp_path):
    """26 doublings of two tensors on different grids are 2^27 parts."""
    quant = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND", "domain": "qonnx.custom_op.general"}
    nodes = [node("Quant", ["x", s, "zero", "bits"], [f"q{i}"], **quant) for i, s in enumerate(("s0", "s1"))]
    nodes.append(node("Concat", ["q0", "q1"], ["c0"], axis=1))
    nodes += [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=1) for i in range(26)]
    nodes.append(node("GlobalMaxPool", ["c26"], ["y"]))
    constants = [constant(v, n) for n, v in {"s0": 0.125, "s1": 0.25, "zero": 0, "bits": 4}.items()]
    path = saved(
        tmp_path, nodes, {"x": [1, 1, 2, 2]}, {"y": [1, 2**27, 1, 1]}, constants, 17, ["qonnx.custom_op.general"]
    )
    with pytest.raises(ModelError, match=f"tensors side by side; up to {limits.MOST_PARTS} would be accepted"):
        load(path)


def with_functions(path, functions) -> None:
    model = onnx.load(path)
    model.functions.extend(functions)
    onnx.save(model, path)


def function(name: str, nodes) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(LOCAL, 1)]
    return helper.make_function(LOCAL, name, ["a"], ["b"], nodes, opsets)


def test_nested_functions(tmp_path):
    """Each of 30 functions calls the one before twice: 2^30 operators."""
    functions = [function("F0", [node("Relu", ["a"], ["m"]), node("Relu", ["m"], ["b"])])]
    for i in range(1, 30):
        calls = [node(f"F{i - 1}", ["a"], ["m"], domain=LOCAL), node(f"F{i - 1}", ["m"], ["b"], domain=LOCAL)]
        functions.append(function(f"F{i}", calls))
    path = saved(tmp_path, [node("F29", ["x"], ["y"], domain=LOCAL)], {"x": [1, 4]}, {"y": [1, 4]}, [], 17, [LOCAL])
    with_functions(path, functions)
    with pytest.raises(ModelError, match="has 1,073,741,824 operators once its functions are inlined; up to"):
        load(path)


def test_functions_that_call_each_other(tmp_path):
    functions = [function(f"F{i}", [node(f"F{1 - i}", ["a"], ["b"], domain=LOCAL)]) for i in (0, 1)]
    path = saved(tmp_path, [node("F0", ["x"], ["y"], domain=LOCAL)], {"x": [1, 4]}, {"y": [1, 4]}, [], 17, [LOCAL])
    with_functions(path, functions)
    with pytest.raises(ModelError, match="function F0 calls itself"):
        load(path)


def test_functions_that_are_shared_are_inlined(tmp_path):
    functions = [
        function("F0", [node("Relu", ["a"], ["b"])]),
        function("F1", [node("F0", ["a"], ["m"], domain=LOCAL), node("F0", ["m"], ["b"], domain=LOCAL)]),
    ]
    path = saved(tmp_path, [node("F1", ["x"], ["y"], domain=LOCAL)], {"x": [1, 4]}, {"y": [1, 4]}, [], 17, [LOCAL])
    with_functions(path, functions)
    assert {n.op for n in load(path).nodes} == {"Clip"}


def test_a_constant_that_expands(tmp_path):
    nodes = [
        node("Expand", ["one", "many"], ["e"]),
        node("ReduceMax", ["e"], ["m"], keepdims=1),
        node("Mul", ["x", "m"], ["y"]),
    ]
    constants = [constant([1], "one"), constant([10**9], "many", np.int64)]
    path = saved(tmp_path, nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, constants)
    with pytest.raises(ModelError, match=r"\(Expand\): a tensor of \[1000000000\], 1,000,000,000 values; up to"):
        load(path)


@pytest.mark.parametrize(
    "shape, told",
    [
        ([1, 100_000, 100_000], "input x: a tensor of .* values; up to 2,147,483,648 would be accepted"),
        ([1, 4, 4, 4], None),
    ],
)
def test_huge_inputs(tmp_path, shape, told):
    path = saved(tmp_path, [node("Relu", ["x"], ["y"])], {"x": shape}, {"y": shape}, [])
    if told is None:
        assert load(path).types["x"].shape == tuple(shape[1:])
        return
    with pytest.raises(ModelError, match=told):
        load(path)


def test_inputs_of_one_name(tmp_path):
    path = saved(tmp_path, [node("Relu", ["x"], ["y"])], {"x": [1, 4]}, {"y": [1, 4]}, [])
    model = onnx.load(path)
    model.graph.input.append(model.graph.input[0])
    onnx.save(model, path)
    with pytest.raises(ModelError, match="two inputs are called x"):
        load(path)


def test_equal_node_names_take_linear_time(tmp_path):
    """Each gets a number; looking for it from 1 on took minutes."""
    path = saved(
        tmp_path, chain(3000, lambda a, b: node("Abs", [a], [b], name="same")), {"x": [1, 4]}, {"y": [1, 4]}, []
    )
    names = [n.name for n in load(path).nodes]
    assert len(set(names)) == 3000 and names[:3] == ["same", "same.1", "same.2"]


@pytest.mark.parametrize(
    "step",
    [
        lambda a, b: node("Add", [a, "x"], [b]),
        lambda a, b: node("Mul", [a, "c"], [b]),
        lambda a, b: node("Clip", [a, "", "c"], [b]),
        lambda a, b: node("MaxPool", [a], [b], kernel_shape=[1, 1]),
        lambda a, b: node("Transpose", [a], [b], perm=[0, 1, 3, 2]),
    ],
    ids=["Add", "Mul", "Clip", "MaxPool", "Transpose"],
)
def test_deep_models_are_read(tmp_path, step):
    """Deeper than Python's stack, and what they can hold is still asked for at their end."""
    nodes = [*chain(1500, step), node("Relu", ["y"], ["z"])]
    path = saved(tmp_path, nodes, {"x": [1, 2, 3, 3]}, {"z": [1, 2, 3, 3]}, [constant(1.5, "c")])
    assert load(path).outputs == ["z"]


# -- data in other files -----------------------------------------------------------------------------------------------
def constant_node(folder, location: str):
    """A model whose Constant node keeps its tensor in a file, 4 float32."""
    tensor = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    nodes = [node("Constant", [], ["c"], value=tensor), node("Add", ["x", "c"], ["y"])]
    return saved(folder, nodes, {"x": [1, 4]}, {"y": [1, 4]}, [])


def test_a_constants_data_are_read_beside_the_model(tmp_path, monkeypatch):
    """Not from the working directory, which may hold another file of that name."""
    path = constant_node(tmp_path, "w.bin")
    (tmp_path / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.bin").write_bytes(np.full(4, 9, np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "elsewhere")
    (add,) = load(path).nodes
    np.testing.assert_array_equal(add.b, np.arange(4))


def test_a_constants_data_outside_the_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match=r"attribute value of a Constant of .* lie in \.\./w.bin; a file in"):
        load(constant_node(tmp_path, "../w.bin"))


def test_a_pipe_is_not_waited_for(tmp_path):
    path = constant_node(tmp_path, "w.bin")
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="w.bin, which is no file"):
        load(path)


def test_missing_data(tmp_path):
    with pytest.raises(ModelError, match="attribute value of a Constant of .* cannot be read from .*w.bin"):
        load(constant_node(tmp_path, "w.bin"))
