"""What cannot run is refused in one line that names the node, its operator and what would be accepted."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mpcompile.errors import MissingDependency, ModelError, MpError, UsageError
from mpcompile.frontend import load
from tests.data.hand_made import QONNX, Builder

DATA = Path(__file__).parents[1] / "data"
F32 = np.float32


def refusal(tmp_path, model: onnx.ModelProto | Builder, *outputs) -> str:
    """The message with which the model is refused."""
    onnx.save(model.model(*outputs) if isinstance(model, Builder) else model, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "m.onnx")
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 3
    return message


def one(make, shape=(4, 6, 6), opset=17, domains=(QONNX,)) -> tuple[Builder, str]:
    b = Builder("one", opset, shape, domains)
    make(b)
    return b, "y"


QUANTIZERS = {
    "per_row": (
        dict(scale=np.full((1, 1, 6, 1), 0.1) * np.arange(1, 7).reshape(1, 1, 6, 1)),
        r"node node_y \(IntQuant\): 6 scales over an activation; one scale per tensor or per channel would be accepted",
    ),
    "17_bits": (dict(bits=17), r"node node_y \(IntQuant\): a grid of 17 bits; 1 to 8 would be accepted"),
    "1e20_bits": (dict(bits=1e20), r"node node_y \(IntQuant\): a grid of 1e\+20 bits; 1 to 8, for a bias to 32, would"),
    "half_a_bit": (dict(bits=2.5), r"node node_y \(IntQuant\): a bit width of 2.5; whole numbers from 1"),
    "no_bits": (dict(bits=0), r"a bit width of 0;"),
    "nan_bits": (dict(bits=np.nan), r"a bit width of nan;"),
    "infinite_bits": (dict(bits=np.inf), r"a bit width of inf;"),
    "nan": (dict(scale=np.nan), r"node node_y \(IntQuant\): a scale of nan; positive finite scales would be accepted"),
    "zero": (dict(scale=0), r"a scale of 0"),
    "negative": (dict(scale=-0.5), r"a scale of -0.5"),
    "infinite": (dict(scale=np.inf), r"a scale of inf"),
    "zero_point": (dict(zero=0.3), r"a zero point of 0.3; whole and half numbers would be accepted"),
    "nan_zero_point": (dict(zero=np.nan), r"a zero point of nan"),
    "rounding": (dict(mode="NEAREST"), r"rounding mode NEAREST; ROUND, HALF_EVEN, .* would be accepted"),
    "bipolar_zero_point": (dict(bits=1, zero=1), r"one signed bit with a zero point of 1; 0 would be accepted"),
}


@pytest.mark.parametrize("case", QUANTIZERS)
def test_quantizers(tmp_path, case):
    options, message = QUANTIZERS[case]
    parameters = {"scale": 0.5, "zero": 0, "bits": 4, **options}
    assert re.search(message, refusal(tmp_path, *one(lambda b: b.quant("x", output="y", **parameters))))


def test_quantizer_parameters_computed_at_run_time(tmp_path):
    def make(b):
        scale = b.add("ReduceMax", "x", keepdims=0)
        b.add("IntQuant", "x", scale, F32(0), F32(4), output="y", domain=QONNX)

    assert re.search(r"ReduceMax\): .*batch|scale is computed at run time", refusal(tmp_path, *one(make)))


def convolution(**weights):
    """Conv of a quantized x with IntQuant weights of these parameters."""

    def make(b):
        parameters = {"scale": 0.5, "zero": 0, "bits": 4, **weights}
        data = parameters.pop("data", b.rng.standard_normal((3, 4, 2, 2)))
        b.add("Conv", b.quant("x", 0.5, 0, 4), b.quant(data, **parameters), output="y")

    return make


WEIGHTS = {
    "17_bits": (dict(bits=17), r"node node_y \(Conv\): a grid of 17 bits; 1 to 8"),
    "nan": (dict(scale=np.nan), r"IntQuant\): a scale of nan"),
    "nan_data": (dict(data=np.full((3, 4, 2, 2), np.nan)), r"IntQuant\): its data holds nan"),
    "zero_point": (dict(zero=0.25), r"weight zero point of 0.25"),
    "wrong_shape": (
        dict(data=np.zeros((3, 5, 2, 2))),
        r"node node_y \(Conv\): weights of shape \[3, 5, 2, 2\] in 1 groups over 4 channels",
    ),
    "too_large": (dict(data=np.zeros((3, 4, 9, 9))), r"a kernel of \[9, 9\] does not fit into a map of \[6, 6\]"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(tmp_path, case):
    options, message = WEIGHTS[case]
    b = Builder("weights", 17, (4, 6, 6), (QONNX,))
    convolution(**options)(b)
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        b.constants,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    assert re.search(message, refusal(tmp_path, helper.make_model(graph, opset_imports=opsets, ir_version=8)))


BATCH = {
    "flatten": lambda b: b.add("Flatten", "x", output="y", axis=2),
    "flatten_all": lambda b: b.add("Flatten", "x", output="y", axis=0),
    "reshape": lambda b: b.add("Reshape", "x", b.constant([4, 36], np.int64), output="y"),
    "reshape_flat": lambda b: b.add("Reshape", "x", b.constant([-1], np.int64), output="y"),
    "transpose": lambda b: b.add("Transpose", "x", output="y", perm=[1, 0, 2, 3]),
    "squeeze": lambda b: b.add("Squeeze", "x", b.constant([0], np.int64), output="y"),
    "unsqueeze": lambda b: b.add("Unsqueeze", "x", b.constant([0], np.int64), output="y"),
    "mean": lambda b: b.add("ReduceMean", "x", output="y", axes=[0]),
    "concat": lambda b: b.add("Concat", "x", "x", output="y", axis=0),
    "softmax": lambda b: b.add("Softmax", "x", output="y", axis=0),
}


@pytest.mark.parametrize("case", BATCH)
def test_what_mixes_the_batch(tmp_path, case):
    builder, output = one(BATCH[case])
    model = builder.model(output)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    message = refusal(tmp_path, model)
    assert re.search(r"node node_y \(\w+\): .*(batch|axis 0).* would be accepted", message)


@pytest.mark.parametrize("case", ["flatten", "reshape", "reshape_flat", "transpose", "squeeze", "concat"])
def test_an_output_without_a_batch(tmp_path, case):
    """Of a file that fixes the batch to 1: inside of the model such tensors may be."""
    builder, output = one(BATCH[case])
    message = refusal(tmp_path, builder.model(output))
    assert message == "the model's output y has no batch in axis 0; one that has would be accepted"


@pytest.mark.parametrize("case", ["mean", "softmax", "unsqueeze", "flatten_all"])
def test_over_a_batch_of_one(tmp_path, case):
    """The file says that there never is another sample: then an operator along axis 0 has nothing to mix."""
    builder, output = one(BATCH[case])
    onnx.save(builder.model(output), tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").outputs == ["y"]


MIXERS = {
    "reversed": lambda b: b.add("Slice", "x", *(b.constant([n], np.int64) for n in (-1, -(2**40), 0, -1)), output="y"),
    "product": lambda b: b.add("Gemm", "x", "x", output="y", transB=1),
    "triangle": lambda b: b.add("Trilu", "x", output="y"),
    "moved": lambda b: b.add("Pad", "x", b.constant([1, 0, -1, 0], np.int64), output="y"),
    "sum_along": lambda b: b.add("CumSum", "x", b.constant(0, np.int64), output="y"),
}
"""Operators whose output has the batch's size in axis 0, and which mix its samples all the same."""


@pytest.mark.parametrize("case", MIXERS)
def test_what_mixes_samples_without_changing_the_shape(tmp_path, case):
    builder, output = one(MIXERS[case], shape=(4,))
    model = builder.model(output)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert re.search(r"node node_y \(\w+\): .*(batch|axis 0)", refusal(tmp_path, model))


SEPARATE = {
    "slice": lambda b: b.add("Slice", "x", *(b.constant([n], np.int64) for n in (0, 2, 1)), output="y"),
    "cumsum": lambda b: b.add("CumSum", "x", b.constant(1, np.int64), output="y"),
    "layernorm": lambda b: b.add("LayerNormalization", "x", b.constant(np.ones(4, np.float32)), output="y", axis=1),
    "matmul": lambda b: b.add("MatMul", "x", b.constant(np.ones((4, 3), np.float32)), output="y"),
}


@pytest.mark.parametrize("case", SEPARATE)
def test_what_leaves_samples_apart_is_taken(tmp_path, case):
    builder, output = one(SEPARATE[case], shape=(4,))
    model = builder.model(output)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "m.onnx")
    assert load(tmp_path / "m.onnx").batch is None


def with_input(dims, kind=TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, dims)],
        [helper.make_tensor_value_info("y", kind, dims)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    "dims, kind, message",
    [
        (["N", 3, "height", 8], TensorProto.FLOAT, r"input x has a dynamic dimension 2 \(height\); fixed sizes,"),
        (["N", None], TensorProto.FLOAT, r"input x has a dynamic dimension 1"),
        ([1, 3], TensorProto.DOUBLE, r"input x is DOUBLE; FLOAT, FLOAT16, UINT8, .* INT64, BOOL would be accepted"),
        ([], TensorProto.FLOAT, r"input x has no batch axis"),
    ],
)
def test_inputs(tmp_path, dims, kind, message):
    assert re.search(message, refusal(tmp_path, with_input(dims, kind)))


@pytest.mark.parametrize("dims, batch", [(["N", 3], None), ([4, 3], 4), ([None, 3], None)])
def test_batches_that_are_accepted(tmp_path, dims, batch):
    onnx.save(with_input(dims), tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    assert graph.batch == batch and graph.types["x"].shape == (3,)


def nodes(*made, opset=17, extra=(), ir_version=8, constants=()) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(made),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), *extra], ir_version=ir_version)


def spell(op: str, message: str, inputs=("x",), **attributes) -> tuple[onnx.NodeProto, str]:
    """A node named spell, and how its refusal begins."""
    return helper.make_node(op, list(inputs), ["y"], "spell", **attributes), rf"node spell \({op}\): {message}"


EMPTY = helper.make_graph([], "empty", [], [])
UNKNOWN = "an operator of domain my.own that is not known; ai.onnx, and .*IntQuant.* would be accepted"
MALFORMED = {
    "unknown_domain": spell("Magic", UNKNOWN, domain="my.own"),
    "unknown_qonnx": spell("FloatQuant", "an operator of domain qonnx.* that is not known", domain=QONNX),
    "unknown_operator": spell("Relux", "no operator of ONNX opset 17"),
    "reads_nothing": spell("Relu", "reads w, which nothing before it writes", ["w"]),
    "no_inputs": spell("Relu", "", []),
    "no_kernel": spell("MaxPool", ""),
    "short_strides": spell("MaxPool", "strides, pads or dilations that do not fit", kernel_shape=[2, 2], strides=[2]),
    "zero_strides": spell("MaxPool", "a kernel, stride or dilation below 1", kernel_shape=[2, 2], strides=[0, 2]),
    "wrong_perm": spell("Transpose", "", perm=[0, 1, 1, 9]),
    "repeated_perm": spell("Transpose", "perm .* a permutation of them would be accepted", perm=[0, 1, 1, 2]),
    "wrong_kind": spell("MaxPool", "", kernel_shape="ab"),
    "cast": spell("Cast", "a cast to DOUBLE; FLOAT would be accepted", to=TensorProto.DOUBLE),
    "control_flow": spell("If", "control flow; .* would be accepted", then_branch=EMPTY, else_branch=EMPTY),
    "random": spell("RandomNormal", "", [], shape=[1, 2]),
    "constant_as_output": (
        spell("Identity", "", ["s"])[0],
        "output y is a constant; a tensor that depends on an input would be accepted",
    ),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_nodes(tmp_path, case):
    node, message = MALFORMED[case]
    constants = [
        onnx.numpy_helper.from_array(np.array(0.5, F32), "s"),
        onnx.numpy_helper.from_array(np.array(0, np.int8), "z"),
    ]
    model = nodes(node, extra=[helper.make_opsetid("my.own", 1), helper.make_opsetid(QONNX, 1)], constants=constants)
    assert re.search(message, refusal(tmp_path, model))


def qdq(scale, zero, zero_type, **options) -> onnx.ModelProto:
    scale, zero = np.asarray(scale, F32), np.asarray(zero)
    constants = [
        onnx.numpy_helper.from_array(scale, "s"),
        helper.make_tensor("z", zero_type, zero.shape, zero.reshape(-1).tolist()),
    ]
    return nodes(
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize", **options),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize", **options),
        opset=21,
        constants=constants,
        ir_version=10,
    )


@pytest.mark.parametrize(
    "model, message",
    [
        (
            qdq([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 0], TensorProto.INT8, axis=1),
            r"node quantize \(QuantizeLinear\): 4 zero points over an activation",
        ),
        (
            qdq(
                np.arange(1, 73).reshape(1, 2, 6, 6),
                np.zeros((1, 2, 6, 6), int),
                TensorProto.INT8,
                axis=1,
                block_size=2,
            ),
            r"node quantize \(QuantizeLinear\): 144 scales over an activation; one scale per tensor or per channel",
        ),
        (qdq([0.1, 0.2], [0, 0], TensorProto.INT8, axis=1), r"quantize .*blocked quantization"),
        (
            qdq(0.1, 0, TensorProto.FLOAT8E4M3FN),
            r"codes of type FLOAT8E4M3FN; INT8, UINT8, INT4, UINT4, INT2, UINT2, INT16, UINT16 would be accepted",
        ),
        (qdq(0.0, 0, TensorProto.INT8), r"a scale of 0"),
    ],
)
def test_linear_quantizers(tmp_path, model, message):
    assert re.search(message, refusal(tmp_path, model))


def test_dequantizing_by_another_scale(tmp_path):
    model = qdq(0.1, 0, TensorProto.INT8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0.2, F32), "other"))
    model.graph.node[1].input[1] = "other"
    assert re.search(
        r"node dequantize \(DequantizeLinear\): scale 0.2 .* where quantize has 0.1", refusal(tmp_path, model)
    )


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "Neg"])
def test_codes_where_real_values_are_read(tmp_path, op):
    model = qdq(0.1, 0, TensorProto.INT8)
    model.graph.node[1].CopyFrom(helper.make_node(op, ["q"], ["y"], "reader"))
    assert re.search(rf"node reader \({op}\): .*integer codes; .* would be accepted", refusal(tmp_path, model))


def test_newer_opset(tmp_path):
    model = nodes(helper.make_node("Relu", ["x"], ["y"]), opset=99)
    assert re.search(r"opset 99; up to \d+, which onnx .* knows, would be accepted", refusal(tmp_path, model))


# -- files -------------------------------------------------------------------------------------------------------------
def test_no_file(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "absent.onnx")


@pytest.mark.parametrize("content", [b"", b"hello, world\n", b"\x00" * 100, b"PK\x03\x04" + b"\x00" * 50])
def test_no_onnx_file(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="is no ONNX file"):
        load(tmp_path / "m.onnx")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="is a folder, not a file"):
        load(tmp_path)


@pytest.mark.parametrize("stem", ["brevitas_asymmetric_weights", "hand_qdq_int2", "ort_qdq_int8"])
def test_cut_and_damaged_files_are_refused_or_load(tmp_path, stem):
    """Cut at 60 places, and with 120 bytes changed one at a time: a ModelError of one line, or a graph; nothing
    else."""
    whole = (DATA / f"{stem}.onnx").read_bytes()
    rng = np.random.default_rng(0)
    cut = [whole[:n] for n in np.linspace(0, len(whole) - 1, 60, dtype=int)]
    for place in rng.integers(0, len(whole), 120):
        cut.append(whole[:place] + bytes([rng.integers(256)]) + whole[place + 1 :])
    refused = 0
    for i, content in enumerate(cut):
        (tmp_path / "m.onnx").write_bytes(content)
        try:
            load(tmp_path / "m.onnx")
            assert i >= 60, f"a file cut at {len(content)} of {len(whole)} bytes was read"
        except MpError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused >= 60


def test_missing_external_data(tmp_path):
    (tmp_path / "m.onnx").write_bytes((DATA / "brevitas_mlp_dynamo.onnx").read_bytes())
    with pytest.raises(
        ModelError, match=r"the data of initializer \S+ of \S+m.onnx cannot be read from \S+mlp_dynamo.onnx.data"
    ) as caught:
        load(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "/etc/hostname"])
def test_external_data_outside_the_models_folder(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(4096))
    (tmp_path / "models").mkdir()
    model = onnx.load(DATA / "brevitas_mlp_w3a3.onnx")
    held = model.graph.initializer[0]
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value=location)
    path = tmp_path / "models" / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"lie in {location}; a file in the model's folder would be accepted"):
        load(path)


def test_short_external_data(tmp_path):
    for suffix in ("", ".data"):
        (tmp_path / f"brevitas_mlp_dynamo.onnx{suffix}").write_bytes(
            (DATA / f"brevitas_mlp_dynamo.onnx{suffix}").read_bytes()[:20000]
        )
    with pytest.raises(ModelError, match="cannot be read from"):
        load(tmp_path / "brevitas_mlp_dynamo.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnx_ir"])
def test_without_onnx(package):
    """Where an optional package is missing, the message ends with the command that installs it."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from mpcompile.frontend import load\nfrom mpcompile.errors import MissingDependency\n"
        f"try: load({str(DATA / 'ort_qdq_int8.onnx')!r})\nexcept MissingDependency as e: print(e.exit_code, e)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    needed = package.replace("_", "-")
    assert said == f'{MissingDependency.exit_code} reading a model needs {needed}: pip install "mpcompile[compile]"'


def test_importing_the_frontend_loads_no_onnx():
    code = (
        "import sys, mpcompile.frontend, mpcompile.reference.interpret\n"
        "print([m for m in ('onnx', 'onnx_ir', 'tvm', 'torch') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
