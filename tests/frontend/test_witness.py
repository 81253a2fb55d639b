"""What `verify` compares the reading of a file with: other executors, on every kind of file; a wrong reading is found and
named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpcompile.errors import MissingDependency, ModelError, UsageError
from mpcompile.frontend import load_source
from mpcompile.witness import executors
from mpcompile.witness.reading import ComparedTensor, Reading, check_reading

DATA = Path(__file__).parents[1] / "data"
F32 = np.float32
node = helper.make_node
RNG = np.random.default_rng(3)


def constant(value, name: str, dtype: type = F32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def saved(
    folder, nodes, inputs: dict, outputs: dict, constants=(), opset=17, domains=(), itype=TensorProto.FLOAT, **more
):
    ports = [
        [helper.make_tensor_value_info(n, t, s) for n, s in some.items()]
        for some, t in ((inputs, itype), (outputs, TensorProto.FLOAT))
    ]
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    graph = helper.make_graph(nodes, "g", *ports, list(constants))
    onnx.save(helper.make_model(graph, opset_imports=opsets, **({"ir_version": 10} | more)), folder / "m.onnx")
    return folder / "m.onnx"


def quantized(x: str, out: str, **attributes) -> list:
    return [
        node("QuantizeLinear", [x, "s", "z"], [f"{out}_codes"], **attributes),
        node("DequantizeLinear", [f"{out}_codes", "s", "z"], [out], **attributes),
    ]


SCALE = [constant(0.05, "s"), constant(3, "z", np.int8)]
WEIGHTS = [constant(RNG.integers(-127, 128, (4, 2, 3, 3)), "wq", np.int8), constant(RNG.uniform(0.01, 0.03, 4), "ws")]


def small(folder, batch=1, **more):
    """Two contractions' worth of a network: quantizer, convolution, Relu, quantizer, pool."""
    nodes = [
        *quantized("x", "a"),
        node("DequantizeLinear", ["wq", "ws"], ["w"], axis=0),
        node("Conv", ["a", "w", "b"], ["c"], pads=[1] * 4),
        node("Relu", ["c"], ["r"]),
        *quantized("r", "q"),
        node("GlobalAveragePool", ["q"], ["y"]),
    ]
    constants = [*SCALE, *WEIGHTS, constant([1, -1, 0.5, 2], "b")]
    return saved(folder, nodes, {"x": [batch, 2, 6, 6]}, {"y": [batch, 4, 1, 1]}, constants, **more)


def samples(count: int, *shape: int) -> np.ndarray:
    return (2 * np.random.default_rng(7).standard_normal((count, *shape))).astype(F32)


def read(path: Path, x, witness: str = "auto") -> Reading:
    source = load_source(path)
    return check_reading(source, x if isinstance(x, dict) else {source.graph.inputs[0]: x}, witness)


@pytest.mark.parametrize("batch", [1, "N", 4])
def test_a_batch_of_any_kind(tmp_path, batch):
    """Seven samples in a model whose batch is fixed to four: the last batch is filled up."""
    found = read(small(tmp_path, batch), samples(7, 2, 6, 6))
    assert found.equal and not found.unchecked and found.samples == 7
    assert [row.tensor for row in found.rows] == ["a", "c", "r", "q", "y"] and found.compared == found.tensors == 5
    assert [row.kind for row in found.rows] == ["codes", "float", "float", "codes", "float"]
    assert found.rows[0].elements == 7 * 72 and found.rows[-1].elements == 7 * 4
    assert found.summary == f"read as ONNX Runtime computes it: 5 of 5 tensors, {7 * (72 + 144)} codes, on 7 inputs"


def test_external_data(tmp_path):
    model = onnx.load(small(tmp_path, opset=21))  # from where on onnx's evaluator knows both quantizers
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    for witness in ("onnxruntime", "onnx"):
        assert read(tmp_path / "e.onnx", samples(1, 2, 6, 6), witness).equal


def test_several_inputs_of_integers(tmp_path):
    nodes = [node("DequantizeLinear", [n, "s", "z"], [f"{n}d"]) for n in ("p", "q")]
    nodes += [node("Add", ["pd", "qd"], ["y"])]
    constants = [constant(0.05, "s"), constant(7, "z", np.uint8)]
    path = saved(tmp_path, nodes, {"p": [1, 5], "q": [1, 5]}, {"y": [1, 5]}, constants, itype=TensorProto.UINT8)
    given = {"p": np.arange(10).reshape(2, 5), "q": np.arange(246, 256).reshape(2, 5)}
    found = read(path, given)
    assert found.equal and [row.tensor for row in found.rows] == ["pd", "qd", "y"]
    other = {"p": np.full((1, 5), 0.5), "q": np.zeros((1, 5))}
    assert read(path, other).summary == (
        "not checked against ONNX Runtime: it cannot be fed: input p takes uint8, and the array given holds other values"
    )


def test_scales_of_channels_are_compared_on_codes(tmp_path):
    nodes = [
        *quantized("x", "a", axis=1),
        node("DequantizeLinear", ["wq", "ws"], ["w"], axis=0),
        node("Conv", ["a", "w"], ["y"], group=2),
    ]
    constants = [
        constant([0.02, 0.07], "s"),
        constant([3, 3], "z", np.int8),
        constant(RNG.integers(-127, 128, (2, 1, 3, 3)), "wq", np.int8),
        constant([0.01, 0.02], "ws"),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 2, 6, 6]}, {"y": [1, 2, 4, 4]}, constants)
    found = read(path, samples(3, 2, 6, 6))
    assert found.equal and [(r.tensor, r.kind) for r in found.rows] == [("a", "codes"), ("y", "float")]


def test_what_was_left_out_is_compared_too(tmp_path):
    """A Relu over codes that are never negative, an Identity: no node of the graph, but tensors of the file."""
    nodes = [
        *quantized("x", "a"),
        node("Relu", ["a"], ["r"]),
        node("Identity", ["r"], ["i"]),
        node("Neg", ["i"], ["y"]),
    ]
    path = saved(tmp_path, nodes, {"x": [1, 5]}, {"y": [1, 5]}, [constant(0.05, "s"), constant(0, "z", np.uint8)])
    source = load_source(path)
    assert [n.op for n in source.graph.nodes] == ["Quantize", "Affine"]
    found = check_reading(source, {"x": samples(2, 5)})
    assert found.equal and [row.tensor for row in found.rows] == ["a", "r", "i", "y"]


def test_a_local_function_is_read_as_inlined(tmp_path):
    """What is inside has no name in the file: its output has."""
    model = onnx.load(small(tmp_path))
    halve = helper.make_function(
        "mine",
        "Halve",
        ["u"],
        ["v"],
        [
            node("Constant", [], ["h"], value=constant(0.5, "h")),
            node("Mul", ["u", "h"], ["t"]),
            node("Relu", ["t"], ["v"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    model.functions.append(halve)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    next(n for n in model.graph.node if n.op_type == "Relu").CopyFrom(node("Halve", ["c"], ["r"], domain="mine"))
    onnx.save(model, tmp_path / "f.onnx")
    found = read(tmp_path / "f.onnx", samples(2, 2, 6, 6))
    assert found.equal and "r" in {row.tensor for row in found.rows} and found.compared < found.tensors


# -- a reading that is wrong -------------------------------------------------------------------------------------------
def first(graph, op: str):
    return next(n for n in graph.nodes if n.op == op)


def requantized(graph, index: int, **changes) -> None:
    target = [n for n in graph.nodes if n.op == "Quantize"][index]
    target.quantizer = replace(target.quantizer, **changes)
    graph.types[target.outputs[0]] = replace(graph.types[target.outputs[0]], quantizer=target.quantizer)


def narrow(graph) -> None:
    q = first(graph, "Quantize").quantizer
    grid = replace(q.grid, lo=q.grid.lo + 1)
    requantized(graph, 0, grid=grid, umin=q.umin + 1)


WRONG = {
    "a weight": (lambda g: first(g, "Conv").weight.q.__setitem__((1, 0, 1, 1), 90), "c", "Conv_3 (Conv)"),
    "a bias": (lambda g: first(g, "Conv").bias.__setitem__(2, 0.6), "c", "Conv_3 (Conv)"),
    "pads": (lambda g: setattr(first(g, "Conv"), "pads", ((0, 2), (1, 1))), "c", "Conv_3 (Conv)"),
    "a bound": (lambda g: setattr(first(g, "Clip"), "lo", -0.1), "r", "Relu_4 (Relu)"),
    "a scale": (lambda g: requantized(g, 0, spacing=0.0505), "a", "DequantizeLinear_1 (DequantizeLinear)"),
    "a zero point": (lambda g: requantized(g, 1, zero=4), "q", "DequantizeLinear_6 (DequantizeLinear)"),
    "a rounding": (lambda g: requantized(g, 1, rounding="floor"), "q", "DequantizeLinear_6 (DequantizeLinear)"),
    "a grid that is too small": (narrow, "a", "DequantizeLinear_1 (DequantizeLinear)"),
    "a pool": (lambda g: setattr(first(g, "Pooling"), "kind", "max"), "y", "GlobalAveragePool_7 (GlobalAveragePool)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_reading_is_found_where_it_is(tmp_path, what):
    """The tensor that was read wrongly differs, and no other: each is made from the executor's own."""
    change, tensor, writer = WRONG[what]
    source = load_source(small(tmp_path))
    change(source.graph)
    found = check_reading(source, {"x": samples(4, 2, 6, 6) * 3})
    assert not found.equal and found.summary.startswith(f"first difference: node {writer}, {tensor}, input ")
    assert [row.tensor for row in found.rows if row.wrong] == [tensor]
    assert found.to_json()["equal"] is False


def test_a_wrong_shape_is_told(tmp_path):
    source = load_source(small(tmp_path))
    pool = first(source.graph, "Pooling")
    vars(pool).update(kernel=(6, 3), strides=(1, 3))
    source.graph.types["y"] = replace(source.graph.types["y"], shape=(4, 1, 2))
    found = check_reading(source, {"x": samples(1, 2, 6, 6)})
    assert found.summary.startswith(
        "first difference: node GlobalAveragePool_7 (GlobalAveragePool), y, it has the shape [4, 1, 1] there, was read as "
        "[4, 1, 2]; 8 of 8 differ"
    )
    assert found.to_json()["rows"][-1]["steps"] is None


@pytest.mark.parametrize(
    "kind, elements, differing, steps, wrong",
    [
        ("codes", 100, 1, 1, False),  # one in any case
        ("codes", 100, 2, 1, True),
        ("codes", 40_000, 4, 1, False),
        ("codes", 40_000, 5, 1, True),
        ("codes", 40_000, 1, 2, True),
        ("float", 40_000, 1, 1e-3, True),
        ("float", 40_000, 0, 0, False),
    ],
)
def test_how_many_codes_may_flip(kind, elements, differing, steps, wrong):
    row = ComparedTensor("t", "n", "Conv", kind)
    row.add(elements // 2, differing, steps, "somewhere" if differing else "")
    row.add(elements - elements // 2, 0, 0, "")
    assert (row.elements, row.differing, row.steps) == (elements, differing, steps)
    assert row.wrong == wrong and Reading("x", rows=[row]).equal == (not wrong)


# -- who is asked ------------------------------------------------------------------------------------------------------
def test_who_is_chosen():
    models = {stem: onnx.load(DATA / f"{stem}.onnx") for stem in ("brevitas_mlp_w3a3", "ort_qdq_int8")}
    chosen = {stem: executors.choose("auto", model) for stem, model in models.items()}
    assert chosen == {
        "brevitas_mlp_w3a3": executors.EXECUTORS["qonnx"],
        "ort_qdq_int8": executors.EXECUTORS["onnxruntime"],
    }
    assert executors.choose("none", models["ort_qdq_int8"]) is None
    assert executors.choose("onnx", models["ort_qdq_int8"]) is executors.EXECUTORS["onnx"]
    with pytest.raises(UsageError, match="no witness torch; auto, onnxruntime, qonnx, onnx, none would be accepted"):
        executors.choose("torch", models["ort_qdq_int8"])


def test_no_witness_asked_for(tmp_path):
    found = read(small(tmp_path), samples(1, 2, 6, 6), "none")
    assert found.equal and found.to_json()["equal"] is None
    assert found.summary == "not checked against an outside executor: none was asked for"


def test_an_executor_that_is_not_installed(tmp_path, monkeypatch):
    """Chosen by itself, it is said; named, it is an error."""
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    told = read(small(tmp_path), samples(1, 2, 6, 6)).summary
    assert told == "not checked against ONNX Runtime: it is not installed (pip install onnxruntime==1.31.1)"
    with pytest.raises(MissingDependency, match="comparing with ONNX Runtime needs onnxruntime: pip install"):
        read(small(tmp_path), samples(1, 2, 6, 6), "onnxruntime")


def test_an_executor_that_does_not_take_the_file(tmp_path):
    """ONNX Runtime refuses a file of a newer IR version than it knows."""
    path = small(tmp_path, ir_version=99)
    told = read(path, samples(1, 2, 6, 6)).summary
    assert told.startswith("not checked against ONNX Runtime: it does not take it: ") and "IR version" in told
    with pytest.raises(ModelError, match=r"m\.onnx: ONNX Runtime does not take it: .*IR version"):
        read(path, samples(1, 2, 6, 6), "onnxruntime")


def test_an_executor_that_fails_as_it_runs(tmp_path):
    """The file says one batch, a Reshape in it needs another: we read it, ONNX Runtime fails at it."""
    source = load_source(small(tmp_path))
    model = onnx.load(source.path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    onnx.save(model, source.path)
    found = check_reading(source, {"x": samples(1, 2, 6, 6)})
    assert (
        found.unchecked
        and "\n" not in found.summary
        and found.summary.startswith("not checked against ONNX Runtime: it ")
    )


def test_reasons_are_one_line_without_prefixes():
    error = RuntimeError("\n[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel\nmore")
    assert executors.reason_of(error) == "9 : NOT_IMPLEMENTED : no kernel"
    assert executors.reason_of(ValueError()) == "ValueError" and len(executors.reason_of(ValueError("x" * 500))) == 200
