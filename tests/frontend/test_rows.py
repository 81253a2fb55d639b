"""Dense layers over the rows of a sequence: against other executors, and as layers alone."""

import numpy as np
import onnx
import pytest

from mpcompile.errors import ModelError
from mpcompile.frontend import load, load_source
from mpcompile.reference.interpret import interpret
from mpcompile.witness.reading import check_reading
from tests.data.hand_made import QONNX, Builder
from tests.frontend.as_layers import layers, terms
from tests.frontend.outside_executors import by_qonnx
from tests.frontend.test_frontend_operators import check, quantized, weights
from tests.frontend.test_functions_and_views import requantized

F32 = np.float32


@pytest.mark.parametrize("rows", [(6,), (2, 5), (1, 1), (2, 3, 4)], ids=str)
def test_a_product_over_rows_is_a_convolution(tmp_path, rows):
    b = Builder("rows", 17, (*rows, 9))
    b.add("MatMul", quantized(b, "x"), weights(b, (9, 5), 1), output="y")
    ops = {"Quantize", "Transpose", "Conv"} | ({"Reshape"} if len(rows) > 2 else set())
    check(tmp_path, b, "y", ops=ops)


@pytest.mark.parametrize("rows", [(6,), (2, 5)], ids=str)
def test_a_perceptron_over_rows_is_three_layers(tmp_path, rows):
    """It quantizes its input channels last, and the last layer writes them last: nothing is transposed by itself."""
    b = Builder("mlp", 17, (*rows, 9))
    y = b.add("Add", b.add("MatMul", quantized(b, "x"), weights(b, (9, 20), 1)), b.rng.standard_normal(20))
    y = requantized(b, b.add("Relu", y), 0.05)
    b.add("Add", b.rng.standard_normal(7), b.add("MatMul", y, weights(b, (20, 7), 1)), output="y")
    found = layers(check(tmp_path, b, "y", ops={"Quantize", "Transpose", "Conv", "Affine", "Clip"}))
    assert terms(found) == ["RearrangeTerm", "ContractTerm", "ContractTerm"]
    assert [r.channels_last for layer in found for r in layer.results] == [False, False, True]


def test_three_projections_of_one_sequence_share_its_codes(tmp_path):
    b = Builder("qkv", 17, (6, 16))
    x = quantized(b, "x")
    for name in ("q", "k", "v"):
        b.add("MatMul", x, weights(b, (16, 8), 1), output=name)
    assert terms(layers(check(tmp_path, b, "q", "k", "v", ops={"Quantize", "Transpose", "Conv"}))) == [
        "RearrangeTerm",
        *["ContractTerm"] * 3,
    ]


def test_a_residual_add_over_rows_is_in_the_layer(tmp_path):
    b = Builder("skip", 17, (6, 16))
    x = quantized(b, "x")
    y = b.add("Add", b.add("MatMul", x, weights(b, (16, 16), 1)), x)
    b.add("MatMul", requantized(b, y, 0.1, 128), weights(b, (16, 5), 1), output="y")
    found = layers(check(tmp_path, b, "y", ops={"Quantize", "Transpose", "Conv", "Add"}))
    assert terms(found) == ["RearrangeTerm", "ContractTerm", "ViewTerm", "ContractTerm"]


COLUMNS = {
    "Add": lambda b, y, c: b.add("Add", y, c),
    "Sub": lambda b, y, c: b.add("Sub", y, c),
    "a constant less them": lambda b, y, c: b.add("Sub", c, y),
    "Mul": lambda b, y, c: b.add("Mul", c, y),
    "Div": lambda b, y, c: b.add("Div", y, c),
}


@pytest.mark.parametrize("form", COLUMNS)
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5)], ids=str)
def test_a_constant_for_each_column(tmp_path, form, shape):
    b = Builder("columns", 17, (6, 9))
    y = COLUMNS[form](b, b.add("MatMul", quantized(b, "x"), weights(b, (9, 5), 1)), b.rng.uniform(0.5, 2, shape))
    b.add("Relu", y, output="y")
    assert len(layers(check(tmp_path, b, "y", ops={"Quantize", "Transpose", "Conv", "Affine", "Clip"}))) == 2


def test_a_constant_for_each_column_of_what_no_layer_computes_is_a_float_op(tmp_path):
    b = Builder("float", 17, (6, 9))
    b.add("Add", "x", b.rng.standard_normal(9), output="y")
    check(tmp_path, b, "y", ops={"FloatOp"})


def test_a_product_over_rows_of_a_qonnx_file(tmp_path):
    b = Builder("qonnx", 13, (3, 6, 10), (QONNX,))
    x = b.quant("x", 0.1, 0, 4)
    w = b.quant(b.constant(b.rng.standard_normal((10, 7))), b.rng.uniform(0.1, 0.3, (1, 7)), 0, 3)
    y = b.add("Add", b.add("MatMul", x, w), b.rng.standard_normal(7))
    b.quant(b.add("Relu", y), 0.2, 0, 4, output="y", signed=0)
    path = tmp_path / "m.onnx"
    onnx.save(b.model("y"), path)
    graph = load(path)
    sample = b.rng.standard_normal(b.shape).astype(F32)
    np.testing.assert_allclose(interpret(graph, {"x": sample})["y"], by_qonnx(path, sample)["y"], atol=1e-6)
    assert len(layers(graph)) == 2


def test_rows_of_several_scales_are_a_float_op(tmp_path):
    b = Builder("mixed", 17, (4, 9))
    x = b.add("Concat", quantized(b, "x"), requantized(b, "x", 0.2), axis=1)
    b.add("MatMul", x, weights(b, (9, 5), 1), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Concat", "FloatOp"})
    assert [n.reason for n in graph.nodes if n.op == "FloatOp"] == ["its input joins tensors of different scales"]


# -- rows in axis 0, of a file whose batch is 1 --------------------------------------------------------------------------
def number(b: Builder, *sizes: int) -> str:
    return b.constant(list(sizes), np.int64)


FLATTENED = {
    "Reshape": (
        lambda b, x: b.add("Reshape", x, number(b, 6, 9)),
        lambda b, y: b.add("Reshape", y, number(b, 1, 6, -1)),
    ),
    "Reshape by its size": (
        lambda b, x: b.add("Reshape", x, number(b, -1, 9)),
        lambda b, y: b.add("Reshape", y, number(b, 1, 6, 7)),
    ),
    "Squeeze": (lambda b, x: b.add("Squeeze", x, number(b, 0)), lambda b, y: b.add("Unsqueeze", y, number(b, 0))),
}


@pytest.mark.parametrize("form", FLATTENED)
@pytest.mark.parametrize("product", ["Gemm", "MatMul"])
def test_a_gemm_over_rows_as_onnx_runtime_fuses_it(tmp_path, form, product):
    """Its quantizer writes a MatMul and an Add over a sequence so: rows in axis 0 for the Gemm, then a sequence again."""
    apart, together = FLATTENED[form]
    b = Builder("gemm", 17, (6, 9))
    x = requantized(b, apart(b, requantized(b, "x", 0.03, 128)), 0.03, 128)
    bias = [b.rng.standard_normal(20)] if product == "Gemm" else []
    y = b.add("Relu", b.add(product, x, weights(b, (9, 20), 1), *bias))
    y = requantized(b, y, 0.05)
    y = b.add("Gemm", y, weights(b, (7, 20), 0), b.rng.standard_normal(7), transB=1)
    y = together(b, requantized(b, y, 0.1, 120))
    b.add("Relu", y, output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Reshape", "Transpose", "Conv", "Clip"})
    found = layers(graph)
    assert terms(found) == ["RearrangeTerm", "ContractTerm", "ContractTerm"]
    assert verified(tmp_path / "m.onnx", b)


def verified(path, b: Builder) -> bool:
    """Whether the outside witness sees every tensor of the graph that has a name in the file as it was read."""
    return bool(check_reading(load_source(path), {"x": b.rng.standard_normal((2, *b.shape)).astype(F32)}).equal)


def test_rows_in_axis_0_with_16_bits_stay_in_float(tmp_path):
    b = Builder("wide", 21, (6, 9))
    rows = b.add("Reshape", "x", number(b, 6, 9))
    s, z = b.constant(F32(0.001)), b.constant(0, np.uint16)
    wide = b.add("DequantizeLinear", b.add("QuantizeLinear", rows, s, z), s, z)
    b.add("Reshape", b.add("Relu", wide), number(b, 1, 6, 9), output="y")
    check(tmp_path, b, "y", ops={"Reshape", "Clip", "FloatOp"})


def test_a_reshape_that_does_not_fit_is_refused(tmp_path):
    b = Builder("misfit", 17, (6, 9))
    b.add("Reshape", quantized(b, "x"), number(b, 5, 9), output="y")
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"node node_y \(Reshape\): \[1, 6, 9\] does not reshape to \[5, 9\]"):
        load(tmp_path / "m.onnx")
