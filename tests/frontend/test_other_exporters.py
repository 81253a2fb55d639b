"""Forms that other exporters write, read as ONNX Runtime reads them: types behind folded constants, scalars, casts of
codes, ONNX Runtime's own domain; and what ONNX forbids, refused."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save_model

from mpcompile.errors import ModelError
from mpcompile.frontend import load, load_source
from mpcompile.reference.interpret import interpret
from mpcompile.witness.reading import check_reading
from tests.frontend.outside_executors import by_qonnx

node = helper.make_node
QONNX = "qonnx.custom_op.general"


def constant(value, name: str, dtype=np.float32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def saved(folder, nodes, inputs: dict, outputs: dict, constants, opset: int = 17, domains=()):
    """The file of a small model, float32 in and out."""
    ports = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in some.items()] for some in (inputs, outputs)
    ]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(helper.make_graph(nodes, "g", *ports, constants), opset_imports=opsets, ir_version=10)
    save_model(model, folder / "m.onnx")
    return folder / "m.onnx"


def both(path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the imported graph and ONNX Runtime make of one sample, x with its batch axis."""
    graph = load(path)
    mine = interpret(graph, {graph.inputs[0]: x[0]})[graph.outputs[0]]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return mine, session.run(None, {session.get_inputs()[0].name: x})[0][0]


ZERO = {
    "initializer": ([], [constant(0, "wz", np.int8)]),
    "identity": ([node("Identity", ["z0"], ["wz"])], [constant(0, "z0", np.int8)]),
    "constant": ([node("Constant", [], ["wz"], value=constant(0, "v", np.int8))], []),
    "cast": ([node("Cast", ["z0"], ["wz"], to=TensorProto.INT8)], [constant(0, "z0")]),
    "constant of shape": (
        [node("ConstantOfShape", ["one"], ["wz"], value=constant([0], "v", np.int8))],
        [constant([1], "one", np.int64)],
    ),
}
"""Ways to write a zero point of int8 without a type in value_info: torch.onnx shares zero points by Identity."""


@pytest.mark.parametrize("way", ZERO)
def test_the_type_of_a_zero_point_is_its_own(tmp_path, way):
    made, constants = ZERO[way]
    nodes = [
        *made,
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("QuantizeLinear", ["w", "ws", "wz"], ["wq"]),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["y"]),
    ]
    constants = [
        *constants,
        constant([[0.5, -0.5], [-0.25, 0.75]], "w"),
        constant(0.01, "ws"),
        constant(0.02, "xs"),
        constant(5, "xz", np.uint8),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 2]}, {"y": [1, 2]}, constants)
    mine, theirs = both(path, np.array([[1, 2]], np.float32))
    np.testing.assert_array_equal(mine, theirs)
    assert (load(path).nodes[-1].weight.q < 0).any()


def test_a_scalar_constant_stays_a_scalar(tmp_path):
    """x[:, 2]: Gather with an index of no axes drops the axis; a Softmax over the wrong one gave all ones."""
    nodes = [node("Gather", ["x", "two"], ["t"], axis=1), node("Softmax", ["t"], ["y"], axis=1)]
    path = saved(tmp_path, nodes, {"x": [1, 4, 6]}, {"y": [1, 6]}, [constant(2, "two", np.int64)], 13)
    assert load(path).types["y"].shape == (6,)
    mine, theirs = both(path, np.random.default_rng(0).standard_normal((1, 4, 6), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_a_shape_computed_from_scalars_folds(tmp_path):
    """view(x.size(0), -1) as PyTorch exported it up to opset 12."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"], axis=0),
        node("Unsqueeze", ["n"], ["n1"], axes=[0]),
        node("Concat", ["n1", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["f"]),
        node("Relu", ["f"], ["y"]),
    ]
    constants = [constant(0, "zero", np.int64), constant([-1], "rest", np.int64)]
    path = saved(tmp_path, nodes, {"x": [1, 2, 3]}, {"y": [1, 6]}, constants, 11)
    mine, theirs = both(path, np.arange(-3, 3, dtype=np.float32).reshape(1, 2, 3))
    np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("to, taken", [(TensorProto.UINT8, True), (TensorProto.INT8, False)])
def test_a_cast_of_codes_to_their_own_type_is_nothing(tmp_path, to, taken):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Cast", ["q"], ["c"], to=to),
        node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    constants = [constant(0.05, "s"), constant(128, "z", np.uint8)]
    path = saved(tmp_path, nodes, {"x": [1, 6]}, {"y": [1, 6]}, constants)
    if not taken:
        with pytest.raises(ModelError, match=r"node Cast_1 \(Cast\): a cast to INT8; FLOAT would be accepted"):
            load(path)
        return
    mine, theirs = both(path, np.linspace(-7, 7, 6, dtype=np.float32)[None])
    np.testing.assert_array_equal(mine, theirs)


def test_quantizers_of_onnx_runtimes_own_domain(tmp_path):
    """As onnxruntime.quantization writes 4 bits below opset 21, with an int32 bias."""
    rng, ours = np.random.default_rng(11), {"domain": "com.microsoft"}
    w = rng.integers(-7, 8, (3, 2, 3, 3))
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], **ours),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], **ours),
        node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], **ours),
        node("DequantizeLinear", ["bq", "bs"], ["bd"], **ours),
        node("Conv", ["xd", "wd", "bd"], ["y"]),
    ]
    constants = [
        constant(0.02, "xs"),
        constant(128, "xz", np.uint8),
        helper.make_tensor("wq", TensorProto.INT4, w.shape, w.reshape(-1).tolist()),
        helper.make_tensor("wz", TensorProto.INT4, [], [0]),
        constant(0.1, "ws"),
        constant([5, -9, 100], "bq", np.int32),
        constant(0.002, "bs"),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 2, 5, 5]}, {"y": [1, 3, 3, 3]}, constants, 17, ["com.microsoft"])
    assert load(path).nodes[-1].weight.grid.bits == 4
    mine, theirs = both(path, rng.standard_normal((1, 2, 5, 5), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_concat_of_maps_of_different_sizes_is_refused(tmp_path):
    path = saved(
        tmp_path,
        [node("Concat", ["x", "z"], ["y"], axis=1)],
        {"x": [1, 4, 8, 8], "z": [1, 4, 4, 4]},
        {"y": [1, 8, 8, 8]},
        [],
    )
    with pytest.raises(ModelError, match=r"\(Concat\): z of \[4, 4, 4\] beside x of \[4, 8, 8\]"):
        load(path)


OLD = {
    "slice": (node("Slice", ["x"], ["y"], starts=[1], ends=[3], axes=[1]), [], (2, 3, 3)),
    "upsample": (node("Upsample", ["x", "s"], ["y"], mode="nearest"), [constant([1, 1, 2, 2], "s")], (4, 6, 6)),
    "pad": (node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="reflect"), [], (4, 5, 5)),
    "split": (node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3]), [], (1, 3, 3)),
    "topmost": (node("ReduceSum", ["x"], ["y"], axes=[2], keepdims=1), [], (4, 1, 3)),
}
"""Operators of opset 9 whose attributes became inputs later."""


@pytest.mark.parametrize("case", OLD)
def test_operators_of_old_opsets(tmp_path, case):
    """Read as their authors meant them, and handed on in the form that later tools know."""
    operator, constants, shape = OLD[case]
    path = saved(tmp_path, [operator], {"x": [1, 4, 3, 3]}, {"y": [1, *shape]}, constants, 9)
    mine, theirs = both(path, np.arange(36, dtype=np.float32).reshape(1, 4, 3, 3))
    assert mine.shape == shape
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.parametrize("way", ["dequantized", "cast"])
@pytest.mark.parametrize("kind, dtype", [(TensorProto.UINT8, np.uint8), (TensorProto.INT8, np.int8)])
def test_an_image_of_integers(tmp_path, way, kind, dtype):
    """As TFLite's and OpenVINO's converters write inputs: codes of a quantizer, or numbers that a Cast makes real."""
    rng = np.random.default_rng(3)
    first = [node("DequantizeLinear", ["x", "s", "z"], ["d"])]
    if way == "cast":
        first = [
            node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            node("Mul", ["f", "s"], ["g"]),
            node("QuantizeLinear", ["g", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        ]
    nodes = [*first, node("DequantizeLinear", ["wq", "ws"], ["w"]), node("Conv", ["d", "w"], ["y"])]
    constants = [
        constant(1 / 255, "s"),
        constant(3, "z", dtype),
        constant(rng.integers(-127, 128, (3, 2, 3, 3)), "wq", np.int8),
        constant(0.01, "ws"),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 2, 5, 5]}, {"y": [1, 3, 3, 3]}, constants)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = kind
    onnx.save(model, path)
    graph = load(path)
    assert [n.op for n in graph.nodes].count("Conv") == 1 and not any(n.op == "FloatOp" for n in graph.nodes)
    x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (1, 2, 5, 5)).astype(dtype)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"x": x})[0][0]
    np.testing.assert_allclose(
        interpret(graph, {"x": x[0].astype(np.float32)})["y"], theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max()
    )


def per_channel(groups: int, multiplier: int, readers) -> tuple[list, list]:
    """A quantizer with a scale for each of 4 channels, and what reads it."""
    rng = np.random.default_rng(7)
    nodes = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"], axis=1),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], axis=1),
        node("DequantizeLinear", ["wq", "ws"], ["wd"], axis=0),
        *readers,
    ]
    outputs = 4 * multiplier
    constants = [
        constant([0.01, 0.02, 0.03, 0.04], "xs"),
        constant([7, 7, 7, 7], "xz", np.uint8),
        constant(rng.integers(-127, 128, (outputs, 4 // groups, 3, 3)), "wq", np.int8),
        constant(rng.uniform(0.01, 0.03, outputs), "ws"),
    ]
    return nodes, constants


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_scale_for_each_channel_goes_into_depthwise_weights(tmp_path, multiplier):
    """What NNCF writes in front of every depthwise convolution."""
    nodes, constants = per_channel(4, multiplier, [node("Conv", ["xd", "wd"], ["y"], group=4)])
    path = saved(tmp_path, nodes, {"x": [1, 4, 6, 6]}, {"y": [1, 4 * multiplier, 4, 4]}, constants)
    graph = load(path)
    (conv,) = (n for n in graph.nodes if n.op == "Conv")
    assert graph.types[conv.inputs[0]].quantizer is not None and len(conv.weight.scale) == 4 * multiplier
    mine, theirs = both(path, np.random.default_rng(1).uniform(0, 3, (1, 4, 6, 6)).astype(np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_scale_for_each_channel_is_multiplied_out_for_others(tmp_path):
    """A convolution over all channels cannot take it in: it, and a pool beside it, read real values."""
    readers = [
        node("Conv", ["xd", "wd"], ["c"]),
        node("GlobalAveragePool", ["xd"], ["p"]),
        node("Add", ["c", "p"], ["y"]),
    ]
    nodes, constants = per_channel(1, 1, readers)
    path = saved(tmp_path, nodes, {"x": [1, 4, 6, 6]}, {"y": [1, 4, 4, 4]}, constants)
    assert [n.op_type for n in load(path).nodes if n.op == "FloatOp"] == ["Conv", "Add"]
    mine, theirs = both(path, np.random.default_rng(1).uniform(0, 3, (1, 4, 6, 6)).astype(np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["Quant", "BipolarQuant"])
def test_a_scale_for_each_channel_in_qonnx(tmp_path, op):
    """As Brevitas's quant_mobilenet_v1_4b has them in front of its depthwise convolutions; witness: qonnx."""
    rng, scales = np.random.default_rng(5), np.array([0.1, 0.2, 0.3, 0.4]).reshape(1, 4, 1, 1)
    options = {"signed": 0, "narrow": 0, "rounding_mode": "ROUND"} if op == "Quant" else {}
    inputs = ["x", "xs", "zero", "bits"] if op == "Quant" else ["x", "xs"]
    weight = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND", "domain": QONNX}
    nodes = [
        node(op, inputs, ["xq"], domain=QONNX, **options),
        node("Quant", ["w", "ws", "zero", "bits"], ["wq"], **weight),
        node("Conv", ["xq", "wq"], ["y"], group=4, kernel_shape=[3, 3]),
    ]
    values = {"xs": scales, "zero": 0, "bits": 4, "ws": 0.05, "w": rng.normal(0, 0.2, (4, 1, 3, 3))}
    constants = [constant(v, n) for n, v in values.items()]
    path = saved(tmp_path, nodes, {"x": [1, 4, 6, 6]}, {"y": [1, 4, 4, 4]}, constants, 17, [QONNX])
    graph = load(path)
    assert not any(n.op == "FloatOp" for n in graph.nodes)
    x = rng.normal(1, 2, (4, 6, 6)).astype(np.float32)
    np.testing.assert_allclose(interpret(graph, {"x": x})["y"], by_qonnx(path, x)["y"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_activations_of_16_bits_run_in_float(tmp_path, kind, domain):
    """To ONNX Runtime's numbers, clamped ones among them; a tensor of 8 bits beside them stays an integer layer's."""
    rng, zero = np.random.default_rng(3), 300 if kind == np.int16 else 40000
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], domain=domain),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], domain=domain),
        node("DequantizeLinear", ["wq", "ws"], ["w"]),
        node("Conv", ["d", "w"], ["c"]),
        node("QuantizeLinear", ["c", "t", "z8"], ["c8"]),
        node("DequantizeLinear", ["c8", "t", "z8"], ["d8"]),
        node("DequantizeLinear", ["vq", "ws"], ["v"]),
        node("Conv", ["d8", "v"], ["y"]),
    ]
    constants = [
        constant(1 / 9000, "s"),
        constant(zero, "z", kind),
        constant(rng.integers(-127, 128, (4, 2, 3, 3)), "wq", np.int8),
        constant(0.01, "ws"),
        constant(0.2, "t"),
        constant(100, "z8", np.uint8),
        constant(rng.integers(-127, 128, (3, 4, 1, 1)), "vq", np.int8),
    ]
    domains = [domain] if domain else []
    path = saved(tmp_path, nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 3, 4, 4]}, constants, 21, domains)
    graph = load(path)
    assert [n.op_type for n in graph.nodes if n.op == "FloatOp"] == ["QuantizeLinear of 16 bits", "Conv"]
    assert [n.op for n in graph.nodes].count("Conv") == 1
    mine, theirs = both(path, 3 * rng.standard_normal((1, 2, 6, 6)).astype(np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


# -- QOperator ---------------------------------------------------------------------------------------------------------
def float_network(folder, classes: int = 5):
    """A float32 network with what ONNX Runtime's quantizer writes operators on codes for."""
    rng = np.random.default_rng(2)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["m1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", ["c2"], ["r2"]),
        node("Add", ["r2", "m1"], ["a"]),
        node("Concat", ["a", "r2"], ["k"], axis=1),
        node("AveragePool", ["k"], ["v"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["v"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "b2": (8,), "w3": (classes, 16), "b3": (classes,)}
    constants = [constant(rng.normal(0, 0.3, shape), name) for name, shape in shapes.items()]
    return saved(folder, nodes, {"x": [1, 3, 8, 8]}, {"y": [1, classes]}, constants, 13)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_file_of_operators_on_codes(tmp_path, per_channel):
    """ONNX Runtime's quantizer with QuantFormat.QOperator, against ONNX Runtime on that very file. Weights of 7 bits: on
    CPUs without VNNI its products of uint8 by int8 saturate at 16 bits."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(9)

    class Samples(CalibrationDataReader):
        left = iter([{"x": rng.standard_normal((1, 3, 8, 8), np.float32)} for _ in range(8)])

        def get_next(self):
            return next(self.left, None)

    options = dict(quant_format=QuantFormat.QOperator, per_channel=per_channel, weight_type=QuantType.QInt8)
    options["reduce_range"] = True
    path = tmp_path / "q.onnx"
    quantize_static(float_network(tmp_path), path, Samples(), activation_type=QuantType.QUInt8, **options)
    operators = {n.op_type for n in onnx.load(path).graph.node}
    assert {"QLinearConv", "QLinearAdd", "QLinearConcat", "QLinearAveragePool", "QGemm"} <= operators
    source = load_source(path)
    nodes = source.graph.nodes
    assert not any(n.op == "FloatOp" for n in nodes) and [n.op for n in nodes].count("Conv") == 2
    found = check_reading(source, {"x": rng.standard_normal((8, 3, 8, 8), np.float32)}, "onnxruntime")
    assert found.equal, found.summary
    assert found.compared >= 9 and {row.kind for row in found.rows} == {"codes"}


@pytest.mark.parametrize("scale", [1 / 256, 1 / 255, 0.004, 0.0071, 0.3, 1.5])
@pytest.mark.parametrize("zero", [0, 7])
def test_a_softmax_of_codes_is_onnx_runtimes(tmp_path, scale, zero):
    """It multiplies by a whole number, the one below 1/scale."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "none"], ["codes"]),
        helper.make_node(
            "QLinearSoftmax",
            ["codes", "step", "none", "scale", "zero"],
            ["made"],
            domain="com.microsoft",
            axis=-1,
            opset=17,
        ),
        helper.make_node("DequantizeLinear", ["made", "scale", "zero"], ["y"]),
    ]
    constants = [
        constant(np.float32(0.07), "step"),
        constant(np.uint8(100), "none", np.uint8),
        constant(np.float32(scale), "scale"),
        constant(np.uint8(zero), "zero", np.uint8),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 60, 10]}, {"y": [1, 60, 10]}, constants, domains=("com.microsoft",))
    x = np.random.default_rng(3).normal(0, 2, (1, 60, 10)).astype(np.float32)
    ours, theirs = both(path, x)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("zero", [0, 1, -95])
@pytest.mark.parametrize("op", ["QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearAdd", "QLinearMul"])
def test_ties_of_operators_on_codes_are_onnx_runtimes(tmp_path, op, zero):
    """Which of two codes a half becomes: some operators round with the zero point, some before it is added."""
    two = op in ("QLinearAdd", "QLinearMul")
    out = ["two", "zero"] if two else ["one", "zero"]
    beside = ["other", "one", "none"] if two else []
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "none"], ["codes"]),
        helper.make_node(
            op, ["codes", "one", "none", *beside, *out], ["made"], domain="com.microsoft",
            **({"kernel_shape": [1, 2], "strides": [1, 2]} if op == "QLinearAveragePool" else {}),
        ),
        helper.make_node("DequantizeLinear", ["made", *out], ["y"]),
    ]  # fmt: skip
    constants = [
        constant(np.float32(1), "one"),
        constant(np.float32(2), "two"),
        constant(np.int8(0), "none", np.int8),
        constant(np.int8(zero), "zero", np.int8),
        constant(np.int8(op == "QLinearMul"), "other", np.int8),
    ]
    shape = [1, 20, 1, 2] if op == "QLinearGlobalAveragePool" else [1, 1, 5, 8]
    x = np.arange(40, dtype=np.float32)
    x[1::2] += np.arange(20) % 2  # a pair's mean is a half, or whole
    written = [1, 20, 1, 1] if op == "QLinearGlobalAveragePool" else [1, 1, 5, 8 if two else 4]
    path = saved(tmp_path, nodes, {"x": shape}, {"y": written}, constants, domains=("com.microsoft",))
    ours, theirs = both(path, x.reshape(shape))
    np.testing.assert_array_equal(ours, theirs)
