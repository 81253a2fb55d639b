"""Operators that run in float: TVM's own, fused where it can, exact layers around; what TVM lacks is refused by
name."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp, Graph, Reshape, TensorType, Transpose
from mpcompile.runtime.bundle import open_bundle
from tests.patience import PATIENCE

QONNX = "qonnx.custom_op.general"


def float_op(
    op: str, inputs: dict, outputs: dict, constants: dict | None = None, *, domain: str = "", **attributes
) -> FloatOp:
    """A FloatOp node; inputs and outputs map names to shapes without batch."""
    constants = constants or {}
    node = helper.make_node(op, [*inputs, *constants], [*outputs], domain=domain, **attributes)
    ports = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, *s)) for n, s in group.items()]
        for group in (inputs, outputs)
    ]
    graph = helper.make_graph([node], op, *ports, [numpy_helper.from_array(a, n) for n, a in constants.items()])
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    name = f"{op.lower()}_{next(iter(outputs))}"
    return FloatOp(name, [*inputs], [*outputs], op_type=op, model=model.SerializeToString())


def graph_of(nodes, shapes: dict, inputs, outputs) -> Graph:
    return Graph(nodes, {t: TensorType(s) for t, s in shapes.items()}, inputs, outputs, "float").check()


@pytest.fixture
def chain():
    """Convolution, swish, softmax, transpose, flatten, Gemm; `m` and `t` are outputs that others read too."""
    rng = np.random.default_rng(0)
    normal = lambda *s: rng.normal(0, 0.5, s).astype(np.float32)
    maps = dict.fromkeys(("c", "s", "m", "p"), (8, 6, 16))
    weights = {"w": normal(8, 3, 3, 3), "b": normal(8)}
    nodes = [
        float_op("Conv", {"x": (3, 6, 16)}, {"c": maps["c"]}, weights, pads=[1] * 4),
        float_op("Sigmoid", {"c": maps["c"]}, {"s": maps["s"]}),
        float_op("Mul", {"s": maps["s"], "c": maps["c"]}, {"m": maps["m"]}),
        float_op("Softmax", {"m": maps["m"]}, {"p": maps["p"]}, axis=1),
        Transpose("turn", ["p"], ["t"], perm=(1, 2, 0)),
        Reshape("flat", ["t"], ["f"], shape=(768,)),
        float_op("Gemm", {"f": (768,)}, {"y": (10,)}, {"v": normal(10, 768)}, transB=1),
    ]
    return graph_of(nodes, {"x": (3, 6, 16), **maps, "t": (6, 16, 8), "f": (768,), "y": (10,)}, ["x"], ["y", "m", "t"])


def test_a_chain_equals_onnx_and_is_fused(chain, tmp_path):
    path = compile_model(chain, output=tmp_path / "chain.mpc")
    report = verify(chain, path)
    assert report.equal, report.summary
    with open_bundle(path, 1) as bundle:
        assert len(bundle.plan.calls) == 4  # convolution with swish, softmax, transpose, Gemm
        assert {p.buffer.tensor for p in bundle.plan.buffers} >= {"x", "m", "p", "t", "f", "y"}
        assert [port.name for port in bundle.outputs] == ["y", "m", "t"]


def test_outputs_that_share_their_bytes(tmp_path):
    """An output that is the input, a view of it, a constant's worth of another output, and one named twice."""
    nodes = [
        Reshape("view", ["x"], ["v"], shape=(12,)),
        float_op("Relu", {"v": (12,)}, {"r": (12,)}),
        Reshape("back", ["r"], ["q"], shape=(3, 4)),
    ]
    graph = graph_of(nodes, {"x": (3, 4), "v": (12,), "r": (12,), "q": (3, 4)}, ["x"], ["x", "v", "q", "r"])
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    with open_bundle(compile_model(graph, output=tmp_path / "views.mpc"), 1) as bundle:
        got = bundle.run(x)
        again = bundle.run(np.stack([x, -x]))
    np.testing.assert_array_equal(got["x"], x)
    np.testing.assert_array_equal(got["v"], x.reshape(-1))
    np.testing.assert_array_equal(got["q"], np.maximum(x, 0))
    np.testing.assert_array_equal(got["r"], np.maximum(x, 0).reshape(-1))
    np.testing.assert_array_equal(again["q"], np.maximum(np.stack([x, -x]), 0))


def test_an_integer_result_becomes_float32(tmp_path):
    shapes = {"x": (5, 7), "y": (5, 1)}
    graph = graph_of([float_op("ArgMax", {"x": (5, 7)}, {"y": (5, 1)}, axis=2)], shapes, ["x"], ["y"])
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    with open_bundle(compile_model(graph, output=tmp_path / "argmax.mpc"), 1) as bundle:
        np.testing.assert_array_equal(bundle.run(x), x.argmax(1)[:, None].astype(np.float32))


def test_float_and_quantized_layers_in_one_file(tmp_path):
    """Quantized convolution → Cos → quantized convolution → Softmax, from a QONNX file."""
    rng = np.random.default_rng(0)

    def quant(x, y, scale, bits, signed):
        return helper.make_node(
            "Quant", [x, scale, "zero", bits], [y], domain=QONNX, signed=signed, narrow=0, rounding_mode="ROUND"
        )

    nodes = [
        quant("x", "xq", "s8", "b8", 1),
        quant("w1", "w1q", "s3", "b3", 1),
        helper.make_node("Conv", ["xq", "w1q"], ["c1"], "first", pads=[1] * 4),
        helper.make_node("Cos", ["c1"], ["g"], "gate"),
        quant("g", "gq", "s4", "b4", 0),
        quant("w2", "w2q", "s3", "b3", 1),
        helper.make_node("Conv", ["gq", "w2q"], ["c2"], "second"),
        helper.make_node("Softmax", ["c2"], ["y"], "classes", axis=1),
    ]
    constants = {"zero": 0.0, "s8": 0.03, "b8": 8.0, "s3": 0.25, "b3": 3.0, "s4": 1 / 16, "b4": 4.0}
    arrays = {n: np.float32(v) for n, v in constants.items()} | {
        "w1": rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.3, (5, 6, 1, 1)).astype(np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 9, 9))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5, 9, 9))],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, tmp_path / "mixed.onnx")
    path = compile_model(tmp_path / "mixed.onnx")
    assert path == tmp_path / "mixed.mpc"
    report = verify(tmp_path / "mixed.onnx", path)
    assert report.equal, report.summary
    with open_bundle(path, 1) as bundle:
        y = bundle.run(rng.normal(size=(2, 3, 9, 9)).astype(np.float32))
        assert {row["op"] for row in bundle.layers} == {"Layer", "Cos", "Softmax"}
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("op, domain", [("Frobnicate", "com.example"), ("StringNormalizer", "")])
def test_an_operator_that_tvm_lacks_is_named(op, domain, tmp_path):
    node = float_op(op, {"x": (4,)}, {"y": (4,)}, domain=domain)
    graph = graph_of([node], {"x": (4,), "y": (4,)}, ["x"], ["y"])
    with pytest.raises(ModelError, match=rf"node {op.lower()}_y \({op}\)") as caught:
        compile_model(graph, output=tmp_path / "no.mpc")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_else_is_said_on_stderr(tmp_path):
    """TVM's own warnings would stand beside our one line."""
    code = f"""
import sys; sys.path.insert(0, {str(_root())!r})
from tests.compile.test_float_ops import *
last = float_op("Frobnicate", {{"r": (4,)}}, {{"y": (4,)}}, domain="com.example")
graph = graph_of([float_op("Relu", {{"x": (4,)}}, {{"r": (4,)}}), last],
                 {{"x": (4,), "r": (4,), "y": (4,)}}, ["x"], ["y"])
try:
    compile_model(graph, output={str(tmp_path / "no.mpc")!r})
except ModelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert "Frobnicate" in done.stdout and done.stderr == "", done.stderr


def _root():
    from pathlib import Path

    return Path(__file__).parents[2]


def pad(mode: str, *more):
    pads = numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 2, 1], np.int64), "p")
    return [helper.make_node("Pad", ["x", "p"], ["t" if more else "y"], mode=mode), *more], [pads]


WRITTEN_AS_FUNCTIONS = {
    **{mode: pad(mode) for mode in ("constant", "reflect", "edge", "wrap")},
    "twice": pad(
        "reflect", helper.make_node("Sigmoid", ["t"], ["u"]), helper.make_node("Pad", ["u", "p"], ["y"], mode="edge")
    ),
    "tile": (
        [helper.make_node("Tile", ["x", "r"], ["y"])],
        [numpy_helper.from_array(np.array([1, 2, 1, 3], np.int64), "r")],
    ),
    "einsum": ([helper.make_node("Einsum", ["x", "x"], ["y"], equation="bchw,bcwv->bchv")], []),
}
"""Operators that TVM's importer writes as calls of functions of its own."""


@pytest.mark.parametrize("case", WRITTEN_AS_FUNCTIONS)
def test_operators_that_are_written_as_functions(tmp_path, case):
    """As ONNX Runtime computes them, and as the reference does."""
    import onnxruntime

    nodes, constants = WRITTEN_AS_FUNCTIONS[case]
    ports = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s)] for n, s in (("x", [1, 2, 4, 4]), ("y", None))]
    graph = helper.make_graph(nodes, case, *ports, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    path = tmp_path / "m.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), path)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4), np.float32)
    (expected,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    bundle = compile_model(path, "native", tmp_path / "m.mpc")
    with open_bundle(bundle, 1) as opened:
        np.testing.assert_allclose(opened.run(x), expected, rtol=1e-5, atol=1e-6)
    assert verify(path, bundle).equal
