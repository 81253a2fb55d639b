"""ONNX files with tensors of 2 and 4 bits, made wider for TVM's importers: ONNX Runtime says what they compute."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpcompile.errors import ModelError
from mpcompile.tvm_frontend.narrow_types import widened


def model(kind, zero=True, port=TensorProto.FLOAT, cast=None):
    """x → QuantizeLinear to `kind` → DequantizeLinear → y."""
    constants = [numpy_helper.from_array(np.float32(0.5), "s")]
    given = ["x", "s"] + (["z"] if zero else [])
    if zero:
        constants.append(helper.make_tensor("z", kind, [], [1]))
    attrs = {} if zero else {"output_dtype": kind}
    nodes = [helper.make_node("QuantizeLinear", given, ["q"], name="quantize", **attrs)]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s"] + (["z"] if zero else []), ["y"], name="back"))
    if cast:
        nodes.append(helper.make_node("Cast", ["y"], ["c"], name="cast", to=cast))
        nodes.append(helper.make_node("Cast", ["c"], ["unused"], name="again", to=TensorProto.FLOAT))
    ports = [helper.make_tensor_value_info(n, t, [40]) for n, t in (("x", port), ("y", TensorProto.FLOAT))]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(proto, x):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("zero", [True, False], ids=["zero point", "output_dtype"])
@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_a_wider_file_computes_the_same(kind, zero):
    """Beyond both ends of the range, and at ties."""
    x = (np.arange(40, dtype=np.float32) - 20) * 0.625
    wide = widened(model(kind, zero))
    onnx.checker.check_model(wide)
    assert not {TensorProto.INT4, TensorProto.UINT4} & {t.data_type for t in wide.graph.initializer}
    np.testing.assert_array_equal(run(wide, x), run(model(kind, zero), x))


def test_other_files_are_left_as_they_are():
    made = model(TensorProto.INT8)
    assert widened(made) is made


def test_what_cannot_be_said_wider():
    with pytest.raises(ModelError, match="its input x is of type INT4; one of 8 bits would be accepted"):
        widened(model(TensorProto.INT8, port=TensorProto.INT4))
    with pytest.raises(ModelError, match=r"node cast \(Cast\): to UINT4; a QuantizeLinear would be accepted"):
        widened(model(TensorProto.INT8, cast=TensorProto.UINT4))
