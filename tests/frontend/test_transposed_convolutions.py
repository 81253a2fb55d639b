"""Transposed convolutions of quantized weights: against other executors, and as layers alone."""

import numpy as np
import onnx
import pytest

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.data.hand_made import QONNX, Builder
from tests.frontend.as_layers import layers, terms
from tests.frontend.outside_executors import by_qonnx
from tests.frontend.test_frontend_operators import check, quantized, weights
from tests.frontend.test_functions_and_views import requantized

F32 = np.float32


TRANSPOSED = {
    # (shape of x, weights, attributes)
    "a kernel as wide as its stride": ((4, 5, 6), (4, 6, 2, 2), dict(strides=[2, 2])),
    "twice as wide": ((4, 5, 6), (4, 5, 4, 4), dict(strides=[2, 2], pads=[1, 1, 1, 1])),
    "output padding": ((4, 5, 3), (4, 3, 3, 3), dict(strides=[2, 2], pads=[1] * 4, output_padding=[1, 1])),
    "groups": ((6, 4, 5), (6, 2, 3, 3), dict(strides=[2, 2], pads=[1] * 4, group=3)),
    "depthwise": ((6, 4, 5), (6, 1, 4, 4), dict(strides=[2, 2], pads=[1] * 4, group=6)),
    "no stride": ((4, 5, 6), (4, 5, 3, 3), dict(pads=[1] * 4)),
    "a stride wider than the kernel": ((4, 5, 6), (4, 5, 2, 2), dict(strides=[3, 3])),
    "strides that differ": ((4, 5, 6), (4, 5, 5, 3), dict(strides=[3, 2], pads=[2, 0, 1, 1])),
    "dilated": ((4, 5, 6), (4, 5, 3, 2), dict(strides=[2, 2], dilations=[2, 3], pads=[1, 1, 2, 0])),
    "a sequence": ((4, 9), (4, 5, 4), dict(strides=[2], pads=[1, 1])),
    "an output shape": ((4, 5, 6), (4, 5, 3, 3), dict(strides=[2, 2], output_shape=[10, 12])),
    "same upper": ((4, 5, 6), (4, 5, 4, 3), dict(strides=[2, 2], auto_pad="SAME_UPPER")),
    "same lower": ((4, 5, 6), (4, 5, 4, 3), dict(strides=[2, 2], auto_pad="SAME_LOWER")),
}


@pytest.mark.parametrize("form", TRANSPOSED)
def test_a_transposed_convolution_is_one_and_moves_codes(tmp_path, form):
    shape, kernel, attributes = TRANSPOSED[form]
    b = Builder(form, 17, shape)
    channels = kernel[1] * attributes.get("group", 1)
    y = b.add(
        "ConvTranspose",
        quantized(b, "x"),
        weights(b, kernel, 1),
        b.rng.standard_normal(channels),
        kernel_shape=list(kernel[2:]),
        **attributes,
    )
    y = requantized(b, b.add("Relu", b.norm(y, channels)), 0.023)
    b.add("Conv", y, weights(b, (3, channels, *[1] * len(kernel[2:]))), output="y")
    kept = {"Quantize", "Conv", "Affine", "Clip"}
    graph = check(tmp_path, b, "y", ops=kept | wanted_moves(form))
    assert terms(layers(graph)).count("RearrangeTerm") == (form != "no stride")


def wanted_moves(form: str) -> set[str]:
    if form == "no stride":
        return set()
    return {"Reshape", "Transpose"} | (set() if form == "a kernel as wide as its stride" else {"View"})


@pytest.mark.parametrize("zero", [0, 117])
def test_transposed_convolutions_of_asymmetric_weights(tmp_path, zero):
    """The taps that a phase lacks are 0, whatever the weights' zero point is."""
    b = Builder("asymmetric", 17, (3, 4, 5))
    codes = b.constant(b.rng.integers(0, 256, (3, 4, 3, 3)), np.uint8)
    w = b.add("DequantizeLinear", codes, b.constant(F32(0.02)), b.constant(zero, np.uint8))
    b.add("ConvTranspose", quantized(b, "x"), w, output="y", strides=[2, 2], pads=[1] * 4)
    check(tmp_path, b, "y", ops={"Quantize", "Conv", "Reshape", "Transpose", "View"})


def test_a_transposed_convolution_of_bipolar_weights(tmp_path):
    """Whose grid has no 0 for the taps that a phase lacks."""
    b = Builder("bipolar", 13, (5, 4, 3), (QONNX,))
    x = b.quant("x", 0.25, 0, 4)
    w = b.add("BipolarQuant", b.constant(b.rng.standard_normal((5, 4, 3, 3))), F32(0.5), domain=QONNX)
    b.add("ConvTranspose", x, w, output="y", strides=[2, 2], kernel_shape=[3, 3])
    path = tmp_path / "m.onnx"
    onnx.save(b.model("y"), path)
    graph, sample = load(path), b.rng.standard_normal(b.shape).astype(F32)
    np.testing.assert_allclose(interpret(graph, {"x": sample})["y"], by_qonnx(path, sample)["y"], atol=1e-5)
    (made,) = (n for n in graph.nodes if n.op == "Conv")
    assert set(np.unique(made.weight.q)) == {-1, 0, 1} and made.weight.grid.has_zero
    layers(graph)


TRANSPOSED_IN_FLOAT = {
    "its weights are not quantized": lambda b, x: (x, b.rng.standard_normal((4, 3, 2, 2)).astype(F32), {}),
    "its input is not quantized": lambda b, x: ("x", weights(b, (4, 3, 2, 2), 1), {}),
    "it cuts off more than a kernel reaches": lambda b, x: (x, weights(b, (4, 3, 2, 2), 1), dict(pads=[2, 2, 2, 2])),
}


@pytest.mark.parametrize("reason", TRANSPOSED_IN_FLOAT)
def test_transposed_convolutions_in_float_say_why(tmp_path, reason):
    b = Builder("float", 17, (4, 6, 6))
    x, w, attributes = TRANSPOSED_IN_FLOAT[reason](b, quantized(b, "x"))
    b.add("ConvTranspose", x, w, output="y", **attributes)
    graph = check(tmp_path, b, "y", ops={"FloatOp"} | ({"Quantize"} if x != "x" else set()))
    assert [n.reason for n in graph.nodes if n.op == "FloatOp"] == [reason]


def test_a_transposed_convolution_that_leaves_nothing_is_refused(tmp_path):
    b = Builder("nothing", 17, (4, 1, 1))
    b.add("ConvTranspose", quantized(b, "x"), weights(b, (4, 3, 2, 2), 1), output="y", pads=[1, 1, 1, 1])
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    with pytest.raises(
        ModelError, match=r"node node_y \(ConvTranspose\): nothing is left of 1 elements between pads of 1"
    ):
        load(tmp_path / "m.onnx")
