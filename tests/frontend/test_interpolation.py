"""Bilinear Resize of a quantized map: ONNX Runtime's float32 result, bit for bit, so that ties fall the same way."""

import numpy as np
import onnx
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.data.hand_made import Builder
from tests.frontend.as_layers import layers, terms
from tests.frontend.outside_executors import by_onnxruntime
from tests.frontend.test_frontend_operators import check, quantized, weights
from tests.frontend.test_functions_and_views import requantized

F32 = np.float32
MODES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
SIZES = {
    "by two": ((8, 9), (16, 18)),
    "by two and three": ((5, 4), (10, 12)),
    "unevenly": ((7, 5), (12, 13)),
    "smaller": ((9, 8), (4, 6)),
    "to one line": ((4, 5), (1, 5)),
    "of one column": ((4, 1), (9, 3)),
}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("mode", MODES)
def test_every_bit_is_onnx_runtimes(tmp_path, mode, sizes):
    before, after = SIZES[sizes]
    b = Builder("resize", 17, (5, *before))
    target = b.constant([1, 5, *after], np.int64)
    y = b.add("Resize", quantized(b, "x"), "", "", target, mode="linear", coordinate_transformation_mode=mode)
    y = requantized(b, y, F32(0.05), 131)  # of the same scale: every sixteenth is a tie where it is doubled
    b.add("Conv", y, weights(b, (3, 5, 1, 1)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Interpolate", "Conv"})
    x = b.rng.normal(0, 2, b.shape).astype(F32)
    mine, theirs = interpret(graph, {"x": x}), by_onnxruntime(tmp_path / "m.onnx", x)
    for node in graph.nodes:
        if node.op in ("Interpolate", "Quantize"):
            assert mine[node.outputs[0]].tobytes() == (theirs[node.outputs[0]] + F32(0)).tobytes()
    found = layers(graph)
    assert terms(found) == ["ViewTerm", "InterpolateTerm", "ContractTerm"]


def test_of_a_concat_each_part_is_resized(tmp_path):
    b = Builder("concat", 17, (4, 5, 6))
    x = quantized(b, "x")
    joined = b.add("Concat", x, requantized(b, b.add("Conv", x, weights(b, (6, 4, 1, 1))), 0.1, 128), axis=1)
    y = b.add(
        "Resize", joined, "", b.constant([1, 1, 2, 2]), mode="linear", coordinate_transformation_mode="half_pixel"
    )
    b.add("Conv", requantized(b, y, 0.1, 128), weights(b, (3, 10, 1, 1)), output="y")
    found = layers(check(tmp_path, b, "y", ops={"Quantize", "Conv", "Concat", "Interpolate"}))
    assert terms(found).count("InterpolateTerm") == 2


@pytest.mark.parametrize(
    "how, reason",
    [
        (dict(mode="cubic"), "it interpolates, and not bilinearly"),
        (dict(mode="linear", coordinate_transformation_mode="tf_crop_and_resize"), "it takes its coordinates by"),
    ],
)
def test_other_interpolations_run_in_float(tmp_path, how, reason):
    b = Builder("other", 17, (4, 5, 6))
    region = b.constant([0, 0, 0, 0, 1, 1, 1, 1]) if "coordinate_transformation_mode" in how else ""
    b.add("Resize", quantized(b, "x"), region, b.constant([1, 1, 2, 2]), output="y", **how)
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    (found,) = (n for n in load(tmp_path / "m.onnx").nodes if n.op == "FloatOp")
    assert reason in found.reason


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("after", [(1, 2), (3, 1), (4, 5)], ids=str)
def test_of_one_pixel_is_a_copy(tmp_path, mode, after):
    """Also of what a layer computes: TVM's operator divides by zero where align_corners leaves one pixel of an axis."""
    b = Builder("one", 17, (5, 4, 3))
    pooled = b.add("GlobalMaxPool", b.add("Conv", quantized(b, "x"), weights(b, (6, 5, 1, 1))))
    target = b.constant([1, 6, *after], np.int64)
    b.add("Resize", pooled, "", "", target, mode="linear", coordinate_transformation_mode=mode, output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", "View", "Pooling"})
    assert graph.types["y"].shape == (6, *after)


def test_one_pixel_of_an_axis_among_others_is_refused_by_name(tmp_path):
    b = Builder("aligned", 17, (5, 4, 3))
    given = dict(mode="linear", coordinate_transformation_mode="align_corners")
    b.add("Resize", b.add("Sin", "x"), "", "", b.constant([1, 5, 1, 6], np.int64), **given, output="y")
    onnx.save(b.model("y"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="align_corners leaves one pixel"):
        compile_model(tmp_path / "m.onnx", output=tmp_path / "m.mpc")
