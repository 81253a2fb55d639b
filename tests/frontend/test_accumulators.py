"""Smooth functions of what a layer computes and nothing quantizes: they are part of that layer."""

import numpy as np
import onnx
import pytest

from mpcompile.frontend import load, load_source
from mpcompile.witness.reading import check_reading
from tests.data.hand_made import Builder
from tests.frontend.as_layers import layers, terms
from tests.frontend.test_frontend_operators import check, quantized, weights
from tests.frontend.test_functions_and_views import requantized

F32 = np.float32
FUNCTIONS = {
    "Sigmoid": ({}, ["Apply"]),
    "Tanh": ({}, ["Apply"]),
    "Exp": ({}, ["Apply"]),
    "Erf": ({}, ["Apply"]),
    "Softplus": ({}, ["Apply"]),
    "Softsign": ({}, ["Apply"]),
    "Elu": (dict(alpha=0.7), ["Apply"]),
    "Celu": (dict(alpha=1.5), ["Apply"]),
    "Selu": ({}, ["Apply"]),
    "HardSigmoid": (dict(alpha=0.3, beta=0.4), []),
    "HardSwish": ({}, ["Times"]),
}


@pytest.mark.parametrize("form", ["map", "rows"])
@pytest.mark.parametrize("op", FUNCTIONS)
def test_it_is_in_the_layer(tmp_path, op, form):
    how, steps = FUNCTIONS[op]
    b = Builder(op, 17, (4, 6, 6) if form == "map" else (6, 9))
    x = quantized(b, "x")
    y = b.add("Conv", x, weights(b, (8, 4, 3, 3))) if form == "map" else b.add("MatMul", x, weights(b, (9, 8), 1))
    y = requantized(b, b.add(op, y, **how), 0.01, 100)
    kernel = (3, 8, 1, 1) if form == "map" else (8, 5)
    b.add("Conv" if form == "map" else "MatMul", y, weights(b, kernel, int(form == "rows")), output="y")
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    assert not any(n.op == "FloatOp" for n in load(tmp_path / "m.onnx").nodes)
    assert check_reading(load_source(tmp_path / "m.onnx"), {"x": b.rng.normal(0, 1, (1, *b.shape)).astype(F32)}).equal
    found = layers(load(tmp_path / "m.onnx"))
    assert terms(found)[1:] == ["ContractTerm"] * 2
    kinds = [type(i).__name__ for i in found[1].epilogue]
    assert [k for k in kinds if k in ("Apply", "Times")] == steps and kinds[-1] == "Round"


def test_silu_of_an_accumulator_is_in_the_layer(tmp_path):
    b = Builder("silu", 17, (4, 6, 6))
    y = b.add("Conv", quantized(b, "x"), weights(b, (8, 4, 3, 3)))
    y = b.add("Mul", y, b.add("Sigmoid", y))
    b.add("Conv", requantized(b, y, 0.01, 20), weights(b, (3, 8, 1, 1)), output="y")
    found = layers(check(tmp_path, b, "y", ops={"Quantize", "Conv", "Smooth", "Mul"}))
    assert terms(found) == ["ViewTerm", "ContractTerm", "ContractTerm"]


def test_a_product_with_a_function_is_added_to_by_itself(tmp_path):
    """A sum behind it does not swallow the product's rounding."""
    b = Builder("skip", 17, (4, 6, 6))
    x = quantized(b, "x")
    y = b.add("Conv", x, weights(b, (4, 4, 1, 1)))
    y = b.add("Add", b.add("Mul", y, b.add("Sigmoid", y)), x)
    b.add("Conv", requantized(b, y, 0.02, 120), weights(b, (3, 4, 1, 1)), output="y")
    found = layers(check(tmp_path, b, "y", ops={"Quantize", "Conv", "Smooth", "Mul", "Add"}))
    steps = found[1].epilogue
    products = {i for i, step in enumerate(steps) if type(step).__name__ in ("Apply", "Times")}
    sums = [step for step in steps if type(step).__name__ == "Plus"]
    assert products and not any({s.x, s.y} & products for s in sums)


@pytest.mark.parametrize("op", ["Sin", "Cos", "Atan"])
def test_what_has_no_definition_runs_in_float(tmp_path, op):
    b = Builder(op, 17, (4, 6, 6))
    b.add(op, b.add("Conv", quantized(b, "x"), weights(b, (8, 4, 3, 3))), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Conv", "FloatOp"})


@pytest.mark.parametrize("between", ["nothing", "a reader in float", "a convolution"])
def test_what_comes_together_is_stored_only_where_something_else_reads_it(tmp_path, between):
    """x·clip(x/6 + ½) of an accumulator x: one layer, unless x is read besides."""
    b = Builder("diamond", 17, (4, 6, 6))
    x = b.add("Conv", quantized(b, "x"), weights(b, (8, 4, 3, 3)))
    gate = b.add("Clip", b.add("Add", b.add("Mul", x, F32(1 / 6)), F32(0.5)), F32(0), F32(1))
    y = requantized(b, b.add("Mul", gate, x), 0.02, 40)
    outputs = ["y"]
    if between == "a convolution":
        outputs.append(b.add("Conv", requantized(b, x, 0.1, 128), weights(b, (2, 8, 1, 1)), output="z"))
    if between == "a reader in float":
        outputs.append(x)
    b.add("Conv", y, weights(b, (3, 8, 1, 1)), output="y")
    ops = {"Quantize", "Conv", "Affine", "Clip", "Mul"}
    found = layers(check(tmp_path, b, *outputs, ops=ops))
    assert (terms(found)[:3] == ["ViewTerm", "ContractTerm", "ViewTerm"]) == (between != "nothing")
