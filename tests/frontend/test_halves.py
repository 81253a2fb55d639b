"""float16 between quantizers, as NVIDIA's ModelOpt writes it, and bfloat16: computed in float32."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.test_other_exporters import node

KINDS = {"FLOAT16": TensorProto.FLOAT16, "BFLOAT16": TensorProto.BFLOAT16}


def half_network(folder, kind: int, real_ports: bool):
    """Input, scales, biases and all between the quantizers in half precision; with `real_ports` casts at both ends."""
    rng = np.random.default_rng(3)

    def constant(value, name: str) -> onnx.TensorProto:
        array = np.asarray(value, helper.tensor_dtype_to_np_dtype(kind))
        return numpy_helper.from_array(array, name)

    def codes(value, name: str, dtype) -> onnx.TensorProto:
        return numpy_helper.from_array(np.asarray(value, dtype), name)

    nodes = [
        *([node("Cast", ["x"], ["h"], to=kind)] if real_ports else []),
        node("QuantizeLinear", ["h" if real_ports else "x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["wq", "ws"], ["wd"], axis=0),
        node("Conv", ["xd", "wd", "b"], ["c"], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["r"]),
        node("Constant", [], ["half"], value=constant(0.5, "v")),
        node("Mul", ["r", "half"], ["m"]),
        node("GlobalAveragePool", ["m"], ["y" if not real_ports else "p"]),
        *([node("Cast", ["p"], ["y"], to=TensorProto.FLOAT)] if real_ports else []),
    ]
    constants = [
        constant(0.03125, "xs"),
        codes(3, "xz", np.int8),
        codes(rng.integers(-127, 128, (4, 2, 3, 3)), "wq", np.int8),
        constant([0.01, 0.02, 0.03, 0.04], "ws"),
        constant(rng.standard_normal(4), "b"),
    ]
    port = TensorProto.FLOAT if real_ports else kind
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", port, [1, 2, 6, 6])],
        [helper.make_tensor_value_info("y", port, [1, 4, 1, 1])],
        constants,
        value_info=[helper.make_tensor_value_info("c", kind, [1, 4, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize("real_ports", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_in_half_precision(tmp_path, kind, real_ports):
    """Its convolution is of integers, what lies between is float32; within a half's rounding of who computes in halves."""
    path = half_network(tmp_path, KINDS[kind], real_ports)
    graph = load(path)
    assert graph.dtypes == {} and [n.op for n in graph.nodes if n.op == "FloatOp"] == []
    x = np.random.default_rng(1).standard_normal((2, 6, 6)).astype(np.float32)
    x = x.astype(helper.tensor_dtype_to_np_dtype(KINDS[kind]))  # as the model gets it
    mine = interpret(graph, {"x": x.astype(np.float32)})["y"]
    np.testing.assert_allclose(mine, in_float32(path, x), rtol=1e-5)
    if kind == "FLOAT16":  # ONNX Runtime has kernels for it
        given = x[None].astype(np.float32) if real_ports else x[None]
        theirs = onnxruntime.InferenceSession(str(path)).run(None, {"x": given})[0][0]
        np.testing.assert_allclose(mine, theirs.astype(np.float32), rtol=4e-3)


def in_float32(path, x) -> np.ndarray:
    """The same network written in float32 from the start."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type in KINDS.values():
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for operator in model.graph.node:
        for attribute in operator.attribute:
            if attribute.name == "to":
                attribute.i = TensorProto.FLOAT
            if attribute.name == "value":
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    del model.graph.value_info[:]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x[None].astype(np.float32)})[0][0]
