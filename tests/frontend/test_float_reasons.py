"""Why an operator runs in float: told with the node, and a model that has one is refused where that is asked for."""

import numpy as np
import onnx
import pytest

from mpcompile.api.float_operators import float_operators, require_quantized
from mpcompile.errors import ModelError
from mpcompile.frontend import load
from tests.data.hand_made import Builder

F32 = np.float32


def quantized(b: Builder, x: str, channels: int = 1) -> str:
    scale = b.constant(F32(0.05) if channels == 1 else np.linspace(0.01, 0.05, channels))
    zero = b.constant(3 if channels == 1 else [3] * channels, np.int8)
    return b.add("DequantizeLinear", b.add("QuantizeLinear", x, scale, zero), scale, zero)


def weights(b: Builder, *shape: int) -> str:
    return b.add("DequantizeLinear", b.constant(b.rng.integers(-128, 128, shape), np.int8), F32(0.02))


def floats(b: Builder, *shape: int) -> str:
    return b.constant(b.rng.standard_normal(shape))


MAP, VECTOR, SEQUENCE = (4, 6, 6), (8,), (3, 8)
CASES = {
    # what is made: (shape of x, the node, the reason that is told)
    "float weights": (
        MAP,
        lambda b: b.add("Conv", quantized(b, "x"), floats(b, 5, 4, 3, 3)),
        "its weights are not quantized",
    ),
    "a float input": (MAP, lambda b: b.add("Conv", "x", weights(b, 5, 4, 3, 3)), "its input is not quantized"),
    "scales of channels": (
        MAP,
        lambda b: b.add("Conv", quantized(b, "x", 4), weights(b, 5, 4, 3, 3)),
        "its input has a scale for each channel",
    ),
    "three axes": (
        (4, 5, 5, 5),
        lambda b: b.add("Conv", quantized(b, "x"), weights(b, 5, 4, 3, 3, 3)),
        "it is over 3 axes",
    ),
    "two activations": (SEQUENCE, lambda b: b.add("MatMul", "x", b.add("Transpose", "x", perm=[0, 2, 1])), "run time"),
    "a float vector": (VECTOR, lambda b: b.add("Gemm", "x", weights(b, 8, 5)), "its input is not quantized"),
    "a function of what is on no grid": (VECTOR, lambda b: b.add("Erf", "x"), "its input is on no grid"),
    "an operator without a handler": (VECTOR, lambda b: b.add("Softmax", "x"), "it has no form on integers"),
    "a dilated pool": (
        MAP,
        lambda b: b.add("MaxPool", quantized(b, "x"), kernel_shape=[2, 2], dilations=[2, 2]),
        "its windows are dilated",
    ),
    "an average without its padding": (
        MAP,
        lambda b: b.add("AveragePool", quantized(b, "x"), kernel_shape=[3, 3], pads=[1] * 4),
        "its averages leave the padding out",
    ),
    "a mean over channels": (
        MAP,
        lambda b: b.add("ReduceMean", quantized(b, "x"), axes=[1]),
        "it is over other axes than the spatial ones",
    ),
    "a concat of rows": (
        MAP,
        lambda b: b.add("Concat", "x", "x", axis=2),
        "it is along another axis than the channels",
    ),
    "a product of two": (
        MAP,
        lambda b: b.add("Sub", "x", floats(b, 4, 6, 6)),
        "none of its inputs is a constant for each channel",
    ),
    "a sum of other shapes": (
        MAP,
        lambda b: b.add("Add", "x", b.add("GlobalAveragePool", "x")),
        "its inputs have different shapes, and none is a constant for each channel",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_the_reason_is_told(tmp_path, what):
    shape, make, reason = CASES[what]
    b = Builder(what, 13, shape)
    onnx.save(b.model(make(b)), tmp_path / "m.onnx")
    (found,) = float_operators(load(tmp_path / "m.onnx"))
    assert reason in found.reason
    with pytest.raises(ModelError) as refused:
        require_quantized(load(tmp_path / "m.onnx"))
    assert str(refused.value).startswith(f"node {found.name} ({found.op_type}) would run in float: {found.reason}; ")


def network(*ends: str) -> Builder:
    b = Builder("net", 13, MAP)
    x = b.add("Conv", quantized(b, "x"), weights(b, 5, 4, 3, 3))
    for end in ends:
        x = b.add(end, x)
    b.last = x
    return b


@pytest.mark.parametrize(
    "ends, told",
    [
        (("Cos", "Relu"), "its input is on no grid; with"),
        (("Cos", "Relu", "Cos"), ", and 1 other would; with"),
        (("Cos", "Sin", "Cos"), ", and 2 others would; with"),
    ],
)
def test_the_first_is_named_and_the_others_counted(tmp_path, ends, told):
    b = network(*ends)
    onnx.save(b.model(b.last), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"^node node_Cos\d+ \(Cos\) would run in float: ") as refused:
        require_quantized(load(tmp_path / "m.onnx"))
    assert told in str(refused.value)


def test_a_quantized_model_passes(tmp_path):
    b = network("Relu", "GlobalAveragePool")
    onnx.save(b.model(b.last), tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    require_quantized(graph)
    assert not float_operators(graph) and "Conv" in {n.op for n in graph.nodes}
