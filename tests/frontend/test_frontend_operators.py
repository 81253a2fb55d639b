"""Each operator and each of its forms: the node it becomes, and its meaning against ONNX Runtime or onnx's own
evaluator."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.data.hand_made import Builder
from tests.frontend.outside_executors import by_onnx, by_onnxruntime

F32 = np.float32


def quantized(b: Builder, x: str, bits8: bool = True) -> str:
    """x through QuantizeLinear and DequantizeLinear to int8."""
    s, z = b.constant(F32(0.05)), b.constant(3, np.int8)
    return b.add("DequantizeLinear", b.add("QuantizeLinear", x, s, z), s, z)


def weights(b: Builder, shape, axis=0) -> str:
    scale = b.constant(b.rng.uniform(0.01, 0.04, shape[axis]))
    return b.add(
        "DequantizeLinear",
        b.constant(b.rng.integers(-128, 128, shape), np.int8),
        scale,
        b.constant(np.zeros(shape[axis]), np.int8),
        axis=axis,
    )


def check(tmp_path, b: Builder, *outputs, ops: set[str], tensors: bool = True):
    """Saves, loads, compares every shared tensor with the other executor's, and the set of node types with `ops`.
    Returns the graph."""
    path = tmp_path / "m.onnx"
    onnx.save(b.model(*outputs), path)
    graph = load(path)
    assert {n.op for n in graph.nodes} == ops
    x = b.rng.standard_normal(b.shape).astype(F32)
    execute = by_onnxruntime if b.opset < 19 else by_onnx  # onnx's evaluator has no DequantizeLinear before opset 19
    mine, theirs = interpret(graph, {"x": x}), execute(path, x)
    shared = set(mine) & set(theirs)
    assert set(outputs) <= shared
    for t in shared:
        assert mine[t].shape == theirs[t].shape == graph.types[t].shape
        np.testing.assert_allclose(
            mine[t], theirs[t], rtol=1e-5, atol=1e-5 * max(1, np.abs(theirs[t]).max()), err_msg=t
        )
    return graph


CONVOLUTIONS = {
    "same_upper": ((5, 9, 10), (7, 5, 3, 4), dict(auto_pad="SAME_UPPER", strides=[2, 3])),
    "same_lower": ((5, 9, 10), (7, 5, 4, 4), dict(auto_pad="SAME_LOWER", strides=[2, 2])),
    "valid": ((5, 9, 10), (7, 5, 3, 3), dict(auto_pad="VALID")),
    "asymmetric": ((5, 9, 10), (7, 5, 3, 2), dict(pads=[0, 1, 2, 0], dilations=[2, 1])),
    "depthwise": ((6, 9, 9), (12, 1, 3, 3), dict(group=6, pads=[1, 1, 1, 1])),
    "grouped": ((6, 9, 9), (8, 3, 1, 1), dict(group=2)),
    "sequence": ((6, 19), (5, 6, 4), dict(strides=[3], pads=[2, 1], dilations=[2])),
}


@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_convolution(tmp_path, form):
    shape, kernel, attributes = CONVOLUTIONS[form]
    b = Builder(form, 17, shape)
    bias = b.add("DequantizeLinear", b.constant(b.rng.integers(-99, 99, kernel[0]), np.int32), F32(0.02))
    b.add("Conv", quantized(b, "x"), weights(b, kernel), bias, output="y", **attributes)
    check(tmp_path, b, "y", ops={"Quantize", "Conv"})


def test_a_convolution_of_float_weights_or_of_a_float_input_is_a_float_op(tmp_path):
    b = Builder("float", 17, (4, 8, 8))
    y = b.add("Conv", quantized(b, "x"), b.rng.standard_normal((3, 4, 3, 3)), auto_pad="SAME_UPPER", strides=[2, 2])
    b.add("Conv", "x", weights(b, (3, 4, 2, 2)), output="z")
    graph = check(tmp_path, b, y, "z", ops={"Quantize", "FloatOp"})
    assert [n.op_type for n in graph.nodes if n.op == "FloatOp"] == ["Conv", "Conv"]


@pytest.mark.parametrize("transposed, alpha, beta", [(0, 1.0, 1.0), (1, 1.0, 1.0), (0, 0.5, 2.0), (1, -2.0, 0.5)])
def test_gemm(tmp_path, transposed, alpha, beta):
    b = Builder("gemm", 17, (9,))
    shape = (5, 9) if transposed else (9, 5)
    b.add(
        "Gemm",
        quantized(b, "x"),
        weights(b, shape, 1 - transposed),
        b.rng.standard_normal(5),
        output="y",
        transB=transposed,
        alpha=alpha,
        beta=beta,
    )
    check(tmp_path, b, "y", ops={"Quantize", "Dense"})


def test_matmul_and_bias(tmp_path):
    b = Builder("matmul", 17, (9,))
    b.add("Add", b.rng.standard_normal(5), b.add("MatMul", quantized(b, "x"), weights(b, (9, 5), 1)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Dense", "Affine"})


AFFINES = {
    "mul": lambda b, x: b.add("Mul", x, b.rng.standard_normal((1, 5, 1, 1)), output="y"),
    "mul_left": lambda b, x: b.add("Mul", b.rng.standard_normal((5, 1, 1)), x, output="y"),
    "scalar": lambda b, x: b.add("Mul", x, F32(-1.5), output="y"),
    "add": lambda b, x: b.add("Add", x, b.rng.standard_normal((5, 1, 1)), output="y"),
    "sub": lambda b, x: b.add("Sub", x, b.rng.standard_normal((5, 1, 1)), output="y"),
    "sub_left": lambda b, x: b.add("Sub", b.rng.standard_normal((1, 5, 1, 1)), x, output="y"),
    "div": lambda b, x: b.add("Div", x, b.rng.uniform(0.5, 2, (5, 1, 1)), output="y"),
    "neg": lambda b, x: b.add("Neg", x, output="y"),
    "sum": lambda b, x: b.add("Sum", x, b.rng.standard_normal((5, 1, 1)), output="y"),
}


@pytest.mark.parametrize("form", AFFINES)
def test_affine(tmp_path, form):
    b = Builder(form, 17, (5, 4, 6))
    AFFINES[form](b, "x")
    check(tmp_path, b, "y", ops={"Affine"})


@pytest.mark.parametrize("shape", [(6,), (4, 6), (5, 4, 6), (1, 1, 6)])
def test_a_constant_along_other_axes_is_a_float_op(tmp_path, shape):
    b = Builder("other", 17, (5, 4, 6))
    b.add("Mul", "x", b.rng.standard_normal(shape), output="y")
    check(tmp_path, b, "y", ops={"FloatOp"})


ACTIVATIONS = {
    "relu": (lambda b: b.add("Relu", "x", output="y"), "Clip"),
    "relu6": (lambda b: b.add("Clip", "x", F32(0), F32(1), output="y"), "Clip"),
    "lower": (lambda b: b.add("Clip", "x", F32(-0.5), output="y"), "Clip"),
    "prelu": (lambda b: b.add("PRelu", "x", b.rng.standard_normal((5, 1, 1)), output="y"), "PRelu"),
    "leaky": (lambda b: b.add("LeakyRelu", "x", output="y", alpha=0.2), "PRelu"),
    "sigmoid": (lambda b: b.add("Sigmoid", "x", output="y"), "FloatOp"),
    "softmax": (lambda b: b.add("Softmax", "x", output="y", axis=1), "FloatOp"),
    "self": (lambda b: b.add("Mul", "x", "x", output="y"), "FloatOp"),
}


@pytest.mark.parametrize("form", ACTIVATIONS)
def test_activation(tmp_path, form):
    make, op = ACTIVATIONS[form]
    b = Builder(form, 17, (5, 4, 6))
    make(b)
    check(tmp_path, b, "y", ops={op})


POOLS = {
    "max": ("MaxPool", dict(kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]), "Pooling"),
    "max_auto": ("MaxPool", dict(kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"), "Pooling"),
    "max_ceil_no_matter": ("MaxPool", dict(kernel_shape=[2, 3], strides=[2, 3], ceil_mode=1), "Pooling"),
    "max_ceil": ("MaxPool", dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), "FloatOp"),
    "max_dilated": ("MaxPool", dict(kernel_shape=[2, 2], dilations=[2, 2]), "FloatOp"),
    "average": ("AveragePool", dict(kernel_shape=[2, 3], strides=[2, 2]), "Pooling"),
    "average_padded": ("AveragePool", dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1), "Pooling"),
    "average_padded_out": ("AveragePool", dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "FloatOp"),
    "global_average": ("GlobalAveragePool", {}, "Pooling"),
    "global_max": ("GlobalMaxPool", {}, "Pooling"),
}


@pytest.mark.parametrize("form", POOLS)
def test_pool(tmp_path, form):
    op, attributes, expected = POOLS[form]
    b = Builder(form, 17, (5, 8, 9))
    b.add(op, "x", output="y", **attributes)
    check(tmp_path, b, "y", ops={expected})


@pytest.mark.parametrize("opset, keep", [(13, 1), (13, 0), (18, 1), (18, 0)])
def test_reduce_mean_over_space_is_a_pool(tmp_path, opset, keep):
    b = Builder("reduce", opset, (5, 4, 6))
    if opset < 18:
        b.add("ReduceMean", "x", output="y", axes=[2, -1], keepdims=keep)
    else:
        b.add("ReduceMean", "x", b.constant([2, 3], np.int64), output="y", keepdims=keep)
    check(tmp_path, b, "y", ops={"Pooling"} if keep else {"Pooling", "Reshape"})


def test_reduce_mean_over_channels_is_a_float_op(tmp_path):
    b = Builder("reduce", 13, (5, 4, 6))
    b.add("ReduceMean", "x", output="y", axes=[1])
    check(tmp_path, b, "y", ops={"FloatOp"})


RESHAPES = {
    "flatten": lambda b: b.add("Flatten", "x", output="y"),
    "minus_one": lambda b: b.add("Reshape", "x", b.constant([1, -1], np.int64), output="y"),
    "batch_free": lambda b: b.add("Reshape", "x", b.constant([-1, 30, 4], np.int64), output="y"),
    "zero": lambda b: b.add("Reshape", "x", b.constant([0, 0, -1], np.int64), output="y"),
    "unsqueeze": lambda b: b.add("Unsqueeze", "x", b.constant([-1, 2], np.int64), output="y"),
    "from_shape": lambda b: b.add(
        "Reshape",
        "x",
        b.add(
            "Concat",
            b.add("Slice", b.add("Shape", "x"), *(b.constant([i], np.int64) for i in (0, 1))),
            b.constant([-1], np.int64),
            axis=0,
        ),
        output="y",
    ),
}


@pytest.mark.parametrize("form", RESHAPES)
def test_reshape(tmp_path, form):
    b = Builder(form, 17, (5, 4, 6))
    RESHAPES[form](b)
    check(tmp_path, b, "y", ops={"Reshape"})


def test_squeeze_and_transpose(tmp_path):
    b = Builder("squeeze", 17, (5, 1, 6))
    b.add("Transpose", b.add("Squeeze", "x", b.constant([2], np.int64)), output="y", perm=[0, 2, 1])
    check(tmp_path, b, "y", ops={"Reshape", "Transpose"})


def test_what_computes_nothing_is_taken_out(tmp_path):
    b = Builder("nothing", 17, (5, 4, 6))
    x = b.add("Identity", "x")
    x = b.add("Cast", b.add("Dropout", x, F32(0.5)), to=1)
    b.add("Relu", b.add("Transpose", x, perm=[0, 1, 2, 3]), output="y")
    check(tmp_path, b, "y", ops={"Clip"})


def test_zero_padding_goes_into_the_convolution(tmp_path):
    b = Builder("pad", 17, (4, 7, 7))
    x = b.add("Pad", quantized(b, "x"), b.constant([0, 0, 1, 0, 0, 0, 2, 1], np.int64))
    b.add("Conv", x, weights(b, (3, 4, 3, 3)), output="y", pads=[0, 1, 0, 0])
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv"})
    assert graph.nodes[-1].pads == ((1, 2), (1, 1))


@pytest.mark.parametrize("factor", [2.5, -0.4])
def test_a_factor_over_codes_goes_into_the_weights(tmp_path, factor):
    b = Builder("factor", 17, (4, 7, 7))
    b.add("Conv", b.add("Mul", quantized(b, "x"), F32(factor)), weights(b, (3, 4, 3, 3)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Conv"})


@pytest.mark.parametrize("between", ["Mul", "Relu", "both"])
def test_what_is_known_of_codes_goes_through_reshape_and_transpose(tmp_path, between):
    b = Builder("through", 17, (4, 3, 5))
    x = quantized(b, "x")
    if between != "Mul":
        x = b.add("Relu", x)
    if between != "Relu":
        x = b.add("Mul", x, F32(0.3))
    x = b.add("Flatten", b.add("Transpose", x, perm=[0, 2, 3, 1]))
    b.add("Gemm", x, weights(b, (60, 5), 1), output="y")
    ops = {"Quantize", "Clip", "Transpose", "Reshape", "Dense"}
    check(tmp_path, b, "y", ops=ops if between != "Mul" else ops - {"Clip"})


def test_split_keeps_the_grid(tmp_path):
    b = Builder("split", 17, (8, 6, 6))
    b.nodes.append(
        helper.make_node("Split", [quantized(b, "x"), b.constant([3, 5], np.int64)], ["low", "high"], "split", axis=1)
    )
    b.add("Conv", "low", weights(b, (3, 3, 3, 3)), output="y")
    b.add("Conv", "high", weights(b, (2, 5, 1, 1)), output="z")
    check(tmp_path, b, "y", "z", ops={"Quantize", "View", "Conv"})


@pytest.mark.parametrize("op, factor", [("Mul", F32(0.3)), ("Div", np.linspace(1, 2, 3).reshape(3, 1, 1, 1))])
def test_factors_over_weights_go_into_their_scale(tmp_path, op, factor):
    b = Builder("weights", 17, (4, 6, 6))
    b.add("Conv", quantized(b, "x"), b.add(op, weights(b, (3, 4, 3, 3)), factor), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Conv"})


def test_relu_on_codes_leaves_codes(tmp_path):
    b = Builder("relu_codes", 17, (4, 7, 7))
    b.add("Conv", b.add("Relu", quantized(b, "x")), weights(b, (3, 4, 3, 3)), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Clip", "Conv"})
    grid = graph.types[graph.nodes[-1].inputs[0]].grid
    assert (grid.lo, grid.hi, grid.planes) == (0, 124, 7)


@pytest.mark.parametrize("op", ["DepthToSpace", "Resize", "Slice"])
def test_operators_that_pick_keep_the_grid(tmp_path, op):
    b = Builder("pick", 17, (8, 6, 6))
    x = quantized(b, "x")
    if op == "DepthToSpace":
        x, channels = b.add(op, x, blocksize=2), 2
    elif op == "Resize":
        x, channels = (
            b.add(op, x, "", b.constant([1, 1, 2, 2]), mode="nearest", coordinate_transformation_mode="asymmetric"),
            8,
        )
    else:
        x, channels = b.add(op, x, b.constant([2], np.int64), b.constant([7], np.int64), b.constant([1], np.int64)), 5
    b.add("Conv", x, weights(b, (3, channels, 3, 3)), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Conv"} | ({"Reshape", "Transpose"} if op == "DepthToSpace" else {"View"}))


def test_a_concat_of_different_grids_stays_quantized_through_pooling_and_flattening(tmp_path):
    b = Builder("mixed", 17, (4, 6, 6))
    s, z = b.constant(F32(0.2)), b.constant(0, np.uint8)
    other = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", s, z), s, z)
    x = b.add("Concat", quantized(b, "x"), other, axis=1)
    x = b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    b.add("Gemm", b.add("Flatten", x), weights(b, (72, 5), 1), output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Pooling", "Reshape", "Concat", "Dense"})


def test_requantizing_to_the_same_grid_is_dropped(tmp_path):
    b = Builder("same", 17, (4, 6, 6))
    s, z = b.constant(F32(0.2)), b.constant(7, np.uint8)
    x = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", s, z), s, z)
    x = b.add("MaxPool", x, kernel_shape=[2, 2])
    b.add("DequantizeLinear", b.add("QuantizeLinear", x, s, z), s, z, output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Pooling"})
    assert [n.op for n in graph.nodes] == ["Quantize", "Pooling"]


@pytest.mark.parametrize("opset", range(13, 28))
def test_every_opset(tmp_path, opset):
    b = Builder("opset", opset, (4, 8, 8))
    x = b.add("Relu", b.norm(b.add("Conv", quantized(b, "x"), weights(b, (6, 4, 3, 3)), pads=[1, 1, 1, 1]), 6))
    s, z = b.constant(F32(0.3)), b.constant(0, np.uint8)
    q = b.add(
        "Clip", b.add("QuantizeLinear", x, s, z), b.constant(0, np.uint8), b.constant(7, np.uint8)
    )  # QCDQ: 3 bits
    x = b.add("MaxPool", b.add("DequantizeLinear", q, s, z), kernel_shape=[2, 2], strides=[2, 2])
    b.add("Gemm", b.add("Flatten", x), weights(b, (96, 5), 1), output="y")
    graph = check(tmp_path, b, "y", ops={"Quantize", "Conv", "Affine", "Clip", "Pooling", "Reshape", "Dense"})
    assert graph.types[graph.nodes[-1].inputs[0]].grid.bits == 3


def test_forms_of_older_opsets(tmp_path):
    """Axes, pads and bounds as attributes."""
    b = Builder("old", 10, (4, 5, 5))
    x = b.add("Clip", "x", min=-0.5, max=1.0)
    x = b.add("Pad", x, pads=[0, 0, 1, 1, 0, 0, 0, 0])
    x = b.add("Dropout", b.add("MaxPool", x, kernel_shape=[6, 1]), ratio=0.5)
    x = b.add("Unsqueeze", b.add("Squeeze", x, axes=[2]), axes=[3])
    b.norm(x, 4)
    b.add("Slice", b.nodes[-1].output[0], *(b.constant([i], np.int64) for i in (1, 3, 2)), output="y")
    check(tmp_path, b, "y", ops={"Clip", "FloatOp", "Pooling", "Reshape", "Affine", "View"})


def model_of(outputs, nodes) -> onnx.ModelProto:
    """A model over x (2, 3) from nodes, with these outputs."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 3))],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, (1, 2, 3)) for o in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_outputs_keep_their_names(tmp_path):
    """An output that is the input, two that are one tensor, and one that is also read."""
    model = model_of(
        ("same", "r", "r2", "s"),
        [
            helper.make_node(op, [a], [b])
            for op, a, b in (
                ("Identity", "x", "same"),
                ("Sigmoid", "x", "inner"),
                ("Identity", "inner", "r"),
                ("Identity", "inner", "r2"),
                ("Sigmoid", "inner", "s"),
            )
        ],
    )
    onnx.save(model, tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    assert graph.outputs == ["same", "r", "r2", "s"]
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(F32)
    found = interpret(graph, {"x": x})
    sigmoid = 1 / (1 + np.exp(-x))
    for name, want in (("same", x), ("r", sigmoid), ("r2", sigmoid), ("s", 1 / (1 + np.exp(-sigmoid)))):
        np.testing.assert_allclose(found[name], want, rtol=1e-5)


def test_a_fixed_batch_is_taken_out(tmp_path):
    """Batch 4 in the input and in a reshape's target."""
    b = Builder("batch", 17, (4, 2, 2))
    b.add(
        "Gemm", b.add("Reshape", quantized(b, "x"), b.constant([4, 16], np.int64)), weights(b, (16, 3), 1), output="y"
    )
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, (4, 4, 2, 2))],
        [helper.make_tensor_value_info("y", 1, (4, 3))],
        b.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    assert graph.batch == 4 and graph.types["y"].shape == (3,)

    x = b.rng.standard_normal((4, 4, 2, 2)).astype(F32)
    (theirs,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    mine = np.stack([interpret(graph, {"x": sample})["y"] for sample in x])
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_local_function_is_inlined(tmp_path):
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    function = helper.make_function("local", "NegRelu", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    graph = helper.make_graph(
        [helper.make_node("NegRelu", ["x"], ["y"], domain="local")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    onnx.save(helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    assert [n.op for n in graph.nodes] == ["Clip", "Affine"]
    np.testing.assert_array_equal(interpret(graph, {"x": np.array([-1, 0, 2], F32)})["y"], np.array([0, 0, -2], F32))


WEIGHT_FORMS = {
    "signed": (TensorProto.INT4, -8, 7, 0),
    "unsigned": (TensorProto.UINT4, 0, 15, 8),
    "asymmetric": (TensorProto.UINT8, 0, 255, 37),
    "per_channel_zero_points": (TensorProto.UINT8, 0, 60, [0, 10, 20, 30, 40]),
    "of_three_bits_in_eight": (TensorProto.INT8, -4, 3, 0),
    "ternary_in_eight": (TensorProto.INT8, -1, 1, 0),
    "odd_in_eight": (TensorProto.INT8, -3, 3, 0),
}


@pytest.mark.parametrize("form", WEIGHT_FORMS)
def test_integer_weights(tmp_path, form):
    """Of every stored type, with zero points; a type wider than its values costs no planes."""
    kind, low, high, zero = WEIGHT_FORMS[form]
    b = Builder(form, 21, (4, 6, 6))
    u = b.rng.integers(low, high + 1, (5, 4, 3, 3))
    u.flat[0], u.flat[1] = low, high
    if form == "odd_in_eight":
        u = 2 * (u // 2) + 1
    zeros = np.broadcast_to(zero, 5)
    w = b.add(
        "DequantizeLinear",
        b.constant(u, np.int64, kind),
        b.constant(b.rng.uniform(0.01, 0.1, 5)),
        b.constant(zeros, np.int64, kind),
        axis=0,
    )
    b.add("Conv", quantized(b, "x"), w, output="y")
    grid = check(tmp_path, b, "y", ops={"Quantize", "Conv"}).nodes[-1].weight.grid
    planes = {
        "signed": 4,
        "unsigned": 4,
        "asymmetric": 8,
        "per_channel_zero_points": 7,
        "of_three_bits_in_eight": 3,
        "ternary_in_eight": 2,
        "odd_in_eight": 2,
    }
    assert grid.planes == planes[form]


def test_float_weights_quantized_in_the_file(tmp_path):
    """QuantizeLinear, Clip and DequantizeLinear over a float initializer are folded: 3 bits, narrow."""
    b = Builder("folded", 17, (4, 6, 6))
    s, z = b.constant(b.rng.uniform(0.2, 0.4, 5)), b.constant(np.zeros(5), np.int8)
    q = b.add("QuantizeLinear", b.rng.standard_normal((5, 4, 3, 3)), s, z, axis=0)
    q = b.add("Clip", q, b.constant(-3, np.int8), b.constant(3, np.int8))
    b.add("Conv", quantized(b, "x"), b.add("DequantizeLinear", q, s, z, axis=0), output="y")
    weight = check(tmp_path, b, "y", ops={"Quantize", "Conv"}).nodes[-1].weight
    assert (weight.grid.lo, weight.grid.hi, weight.grid.planes) == (-3, 3, 3)


def test_a_scaled_and_rearranged_weight_stays_quantized(tmp_path):
    """Reshape and Transpose between the quantizer and the product."""
    b = Builder("rearranged", 17, (12,))
    w = b.add("Transpose", b.add("Reshape", weights(b, (5, 3, 2, 2)), b.constant([5, -1], np.int64)), perm=[1, 0])
    b.add("MatMul", quantized(b, "x"), w, output="y")
    check(tmp_path, b, "y", ops={"Quantize", "Dense"})
