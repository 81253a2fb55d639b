"""Functions of codes as tables, products and sums spread over maps, slices and upsampling as views; against other
executors."""

import numpy as np
import pytest
from onnx import helper

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.frontend import load
from mpcompile.frontend.picking import nearest, pattern
from mpcompile.ir.graph import Along, Listed
from mpcompile.ir.layer import Layer
from tests.data.hand_made import Builder
from tests.frontend.test_frontend_operators import check, quantized, weights

F32 = np.float32


def requantized(b: Builder, x: str, scale: float, zero: int = 0) -> str:
    s, z = b.constant(F32(scale)), b.constant(zero, np.uint8)
    return b.add("DequantizeLinear", b.add("QuantizeLinear", x, s, z), s, z)


FUNCTIONS = {
    "Sigmoid": {},
    "HardSigmoid": dict(alpha=0.3, beta=0.4),
    "HardSwish": {},
    "Tanh": {},
    "Elu": dict(alpha=0.7),
    "Selu": {},
    "Celu": dict(alpha=1.5),
    "Softplus": {},
    "Softsign": {},
    "Erf": {},
    "Exp": {},
    "Abs": {},
    "Sin": {},
    "ThresholdedRelu": dict(alpha=0.5),
}


@pytest.mark.parametrize("op", FUNCTIONS)
def test_a_function_of_codes_is_a_table(tmp_path, op):
    b = Builder(op, 17, (4, 6, 6))
    y = b.add(op, quantized(b, "x"), **FUNCTIONS[op])
    b.add("Conv", requantized(b, y, 0.01, 100), weights(b, (3, 4, 3, 3)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Table", "Conv"})
    (table,) = (n for n in graph.nodes if n.op == "Table")
    assert table.values.shape == (256,) and table.values.dtype == F32


def test_the_exponent_of_a_table_is_a_constant(tmp_path):
    b = Builder("pow", 17, (4, 6, 6))
    b.add("Pow", quantized(b, "x"), b.constant(F32(2.0)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Table"})


def test_a_factor_in_front_of_a_function_is_part_of_it(tmp_path):
    b = Builder("scaled", 17, (4, 6, 6))
    b.add("Sigmoid", b.add("Mul", quantized(b, "x"), b.constant(F32(1.7))), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Table"})


@pytest.mark.parametrize("of", ["float", "not finite"])
def test_a_function_that_no_table_holds_is_a_float_op(tmp_path, of):
    b = Builder("float", 17, (4, 6, 6))
    if of == "float":
        b.add("Sigmoid", "x", output="y")
    else:  # of 0 and of negative codes
        b.add("Log", quantized(b, "x"), output="y")
    check(tmp_path, b, "y", ops={"FloatOp"} | ({"Quantize"} if of != "float" else set()), tensors=False)


def fused(graph):
    return [n for n in apply_all(graph, TO_LAYERS).nodes if isinstance(n, Layer)]


def test_silu_between_quantizers_is_one_table(tmp_path):
    b = Builder("silu", 17, (4, 6, 6))
    x = requantized(b, b.add("Conv", quantized(b, "x"), weights(b, (8, 4, 3, 3))), 0.02, 128)
    s = requantized(b, b.add("Sigmoid", x), 1 / 255)
    b.add("Conv", requantized(b, b.add("Mul", x, s), 0.01, 20), weights(b, (3, 8, 1, 1)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", "Table", "Mul"})
    kinds = [[type(i).__name__ for i in layer.epilogue] for layer in fused(graph)]
    assert kinds[1] == ["Load", "Fma", "Round", "LookUp", "Round"]  # nothing of the map is stored in between


def test_squeeze_and_excitation_stays_on_codes(tmp_path):
    b = Builder("se", 17, (8, 6, 6))
    x = quantized(b, "x")
    pooled = requantized(b, b.add("ReduceMean", x, axes=[2, 3], keepdims=1), 0.02, 128)
    scale = b.add("HardSigmoid", requantized(b, b.add("Conv", pooled, weights(b, (8, 8, 1, 1))), 0.02, 128))
    y = b.add("Mul", requantized(b, scale, 1 / 255), x)
    b.add("Conv", requantized(b, y, 0.02, 128), weights(b, (3, 8, 1, 1)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Pooling", "Conv", "Table", "View", "Mul"})


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 6, 6), (8, 6, 6), (1, 1, 1)], ids=str)
def test_one_of_two_tensors_is_spread_over_the_map(tmp_path, op, shape):
    b = Builder("spread", 17, (8, 6, 6))
    x, small = quantized(b, "x"), quantized(b, "x")
    starts, ends = b.constant([0, 0, 0], np.int64), b.constant(list(shape), np.int64)
    small = b.add("Slice", small, starts, ends, b.constant([1, 2, 3], np.int64))
    b.add(op, x, small, output="y")
    made = {"Mul": {"Mul"}, "Add": {"Add"}, "Sub": {"Affine", "Add"}}[op]
    check(tmp_path, b, "y", ops={"Quantize"} | made | ({"View"} if shape != (8, 6, 6) else set()))


def test_products_of_what_is_on_no_grid_stay_in_float(tmp_path):
    b = Builder("float_product", 17, (8, 6, 6))
    b.add("Mul", "x", b.add("Sigmoid", "x"), output="y")
    check(tmp_path, b, "y", ops={"FloatOp"})


# -- views -------------------------------------------------------------------------------------------------------------
def picks(b: Builder, x: str, form: str) -> str:
    number = lambda *n: b.constant(list(n), np.int64)
    match form:
        case "slice":
            return b.add("Slice", x, number(2), number(7), number(1))
        case "slice backwards":
            return b.add("Slice", x, number(7, -1), number(-100, 0), number(1, 3), number(-1, -2))
        case "every second pixel":
            return b.add("Slice", x, number(1, 0), number(100, 100), number(2, 3), number(2, 2))
        case "gather":
            return b.add("Gather", x, number(5, 3, 1), axis=1)
        case "tile":
            return b.add("Expand", b.add("Slice", x, number(0), number(1), number(1)), number(1, 8, 1, 1))
    raise AssertionError(form)


@pytest.mark.parametrize("form", ["slice", "slice backwards", "every second pixel", "gather", "tile"])
def test_what_is_picked_by_axes_is_a_view(tmp_path, form):
    b = Builder("view", 17, (8, 6, 6))
    y = picks(b, quantized(b, "x"), form)
    b.add("Conv", y, weights(b, (3, {"slice": 5, "gather": 3}.get(form, 8), 1, 1)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "View", "Conv"})


def test_what_is_picked_in_no_even_steps_is_a_view(tmp_path):
    b = Builder("uneven", 17, (8, 6, 6))
    y = b.add("Gather", quantized(b, "x"), b.constant([0, 1, 4], np.int64), axis=1)
    y = b.add("Gather", y, b.constant([5, 5, 0, 2, 3, 3, 1], np.int64), axis=3)
    b.add("Conv", y, weights(b, (3, 3, 1, 1)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "View", "Conv"})
    first, second = (n.along for n in graph.nodes if n.op == "View")
    assert first == (Listed((0, 1, 4)), Along(6), Along(6))
    assert second == (Along(3), Along(6), Listed((5, 5, 0, 2, 3, 3, 1)))


def test_what_is_picked_of_several_axes_at_once_is_a_float_op(tmp_path):
    b = Builder("crossed", 17, (8, 6, 6))
    x = b.add("Slice", "x", b.constant([0], np.int64), b.constant([4], np.int64), b.constant([1], np.int64))
    y = b.add("Concat", quantized(b, x), requantized(b, x, 0.03), axis=1)
    y = b.add("Gather", y, b.constant([6, 0, 1], np.int64), axis=1)
    b.add("Conv", y, weights(b, (3, 1, 1, 1)), output="y", group=3)  # without groups its weights take the order in
    graph = check(tmp_path, b, "y", ops={"FloatOp", "Quantize", "Concat"}, tensors=False)
    reasons = [n.reason for n in graph.nodes if n.op == "FloatOp" and n.op_type == "Gather"]
    assert reasons == ["it does not pick elements along each axis by itself, or of a concat not in order"]


# -- padding -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
@pytest.mark.parametrize("shape, pads", [((3, 4, 5), [0, 0, 2, 1, 0, 0, 1, 3]), ((3, 9), [0, 0, 4, 0, 0, 2])], ids=str)
def test_padding_with_the_maps_own_values_is_a_view(tmp_path, mode, shape, pads):
    b = Builder(mode, 19, shape)
    y = b.add("Pad", quantized(b, "x"), b.constant(pads, np.int64), mode=mode)
    b.add("Conv", y, weights(b, (4, 3, *[2] * (len(shape) - 1))), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "View", "Conv"})


def test_zeros_that_no_convolution_takes_in_are_codes(tmp_path):
    """For a maximum they count, other than a pool's own padding."""
    b = Builder("zeros", 17, (3, 5, 6))
    y = b.add("Pad", quantized(b, "x"), b.constant([0, 0, 1, 0, 0, 0, 3, 2], np.int64))
    y = b.add("MaxPool", y, kernel_shape=[2, 2])
    b.add("Conv", y, weights(b, (4, 3, 2, 2)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Pooling", "Conv"})
    assert fused(graph)[-1].op == "Layer" and len(fused(graph)) == len(apply_all(graph, TO_LAYERS).nodes)


def test_zeros_of_a_grid_without_one_stay_in_float(tmp_path):
    b = Builder("no_zero", 17, (3, 5, 6))
    s, z = b.constant(F32(0.05)), b.constant(0, np.uint8)
    q = b.add("Clip", b.add("QuantizeLinear", "x", s, z), b.constant(3, np.uint8), b.constant(200, np.uint8))
    y = b.add("Pad", b.add("DequantizeLinear", q, s, z), b.constant([0, 0, 1, 0, 0, 0, 0, 2], np.int64))
    b.add("MaxPool", y, kernel_shape=[2, 2], output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "FloatOp", "Pooling"})
    assert [n.op_type for n in graph.nodes if n.op == "FloatOp"] == ["Pad"]


@pytest.mark.parametrize("op, bound, made", [("Max", 0.3, "Clip"), ("Min", 0.7, "Clip"), ("Max", -99.0, "")])
@pytest.mark.parametrize("first", [False, True])
def test_a_maximum_or_minimum_with_a_number_is_a_clip(tmp_path, op, bound, made, first):
    b = Builder("extreme", 17, (3, 5, 6))
    x = b.add("Conv", quantized(b, "x"), weights(b, (4, 3, 1, 1))) if made else quantized(b, "x")
    number = b.constant(F32(bound))
    y = b.add(op, *([number, x] if first else [x, number]))
    b.add("Conv", requantized(b, y, 0.023, 9), weights(b, (2, 4 if made else 3, 1, 1)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Conv"} | ({made} if made else set()))


@pytest.mark.parametrize("op, made", [("Max", "Larger"), ("Min", "Smaller")])
@pytest.mark.parametrize("grid", ["one grid", "two grids"])
def test_the_larger_of_two_tensors_is_in_a_layer(tmp_path, op, made, grid):
    """Of two on one grid it is on that grid: its codes are those of one of them."""
    b = Builder("larger", 17, (4, 6, 6))
    x = quantized(b, "x")
    scales = (0.1, 0.1 if grid == "one grid" else 0.07)
    sides = [requantized(b, b.add("Conv", x, weights(b, (8, 4, 1, 1))), F32(s), 100) for s in scales]
    y = b.add(op, *sides)
    b.add("Conv", requantized(b, y, 0.1, 100), weights(b, (3, 8, 1, 1)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", made})
    (node,) = (n for n in graph.nodes if n.op == made)
    assert (graph.types[node.outputs[0]].quantizer is not None) == (grid == "one grid")
    kinds = [type(i).__name__ for layer in fused(graph) for i in layer.epilogue]
    assert ("Largest" if op == "Max" else "Smallest") in kinds


def test_the_larger_of_what_no_layer_computes_is_a_float_op(tmp_path):
    b = Builder("floats", 17, (3, 5, 6))
    b.add("Max", "x", b.add("Sin", "x"), output="y")
    graph = check(tmp_path, b, "y", ops={"FloatOp"})
    assert graph.nodes[-1].reason == "its input is on no grid"


@pytest.mark.parametrize("mode", ["asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("scale", [2.0, 3.0, 1.5])
def test_resize_to_the_nearest(tmp_path, mode, rounding, scale):
    """A view, whether every pixel comes as often or not."""
    b = Builder("resize", 17, (4, 4, 6))
    given = dict(mode="nearest", coordinate_transformation_mode=mode, nearest_mode=rounding)
    y = b.add("Resize", quantized(b, "x"), "", b.constant([1, 1, scale, scale]), **given)
    b.add("Conv", y, weights(b, (3, 4, 1, 1)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "View", "Conv"})
    (view,) = (n for n in graph.nodes if n.op == "View")
    wanted = [nearest(n, int(n * scale), scale, mode, rounding) for n in (4, 6)]
    assert [a.indices().tolist() for a in view.along[1:]] == [w.tolist() for w in wanted if w is not None]


def test_resize_by_sizes_and_of_opset_10(tmp_path):
    b = Builder("sizes", 17, (4, 4, 6))
    to = b.constant([1, 4, 8, 12], np.int64)
    given = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    b.add("Resize", quantized(b, "x"), "", "", to, **given, output="y")
    assert check(tmp_path, b, "y", ops={"Quantize", "View"}).nodes[-1].along[1:] == (
        Along(8, 0, 1, 2),
        Along(12, 0, 1, 2),
    )
    old = Builder("opset10", 10, (4, 4, 6))
    old.add("Resize", quantized(old, "x"), old.constant([1, 1, 2, 3]), mode="nearest", output="y")
    check(tmp_path, old, "y", ops={"Quantize", "View"})


def test_views_of_a_concat_of_different_grids_are_views_of_its_parts(tmp_path):
    b = Builder("concat", 17, (4, 4, 6))
    x = quantized(b, "x")
    joined = b.add("Concat", x, requantized(b, x, 0.03, 7), axis=1)
    b.nodes.append(helper.make_node("Split", [joined, b.constant([3, 5], np.int64)], ["low", "high"], "split", axis=1))
    grown = b.add(
        "Resize", "high", "", b.constant([1, 1, 2, 2]), mode="nearest", coordinate_transformation_mode="asymmetric"
    )
    b.add("Conv", "low", weights(b, (3, 3, 1, 1)), output="y")
    b.add("Conv", grown, weights(b, (3, 5, 1, 1)), output="z")
    check(tmp_path, b, "y", "z", ops={"Quantize", "View", "Concat", "Conv"})
    assert {n.op for n in apply_all(load(tmp_path / "m.onnx"), TO_LAYERS).nodes} == {"Layer"}


@pytest.mark.parametrize(
    "indices, along",
    [
        ([0, 1, 2, 3], Along(4)),
        ([3, 4], Along(2, 3)),
        ([6, 4, 2], Along(3, 6, -2)),
        ([0, 0, 1, 1, 2], Along(5, 0, 1, 2)),
        ([5], Along(1, 5)),
        ([2, 2, 2], Along(3, 2, 1, 3)),
        ([0, 1, 3], None),
        ([0, 0, 1], Along(3, 0, 1, 2)),
        ([0, 1, 1], None),
    ],
)
def test_patterns_by_hand(indices, along):
    assert pattern(np.array(indices)) == along
    if along:
        assert along.indices().tolist() == indices
