"""Networks of every shape, from torch's export to a QONNX file that is read as integers throughout, and as qonnx's executor
computes it."""

import numpy as np
import onnx
import pytest

import mpcompile as mp
from mpcompile.errors import ModelError, UsageError
from mpcompile.frontend import load_source
from mpcompile.ir.bits import BitPair
from mpcompile.ir.graph import Conv, Dense, FloatOp, Quantize
from mpcompile.witness.reading import check_reading
from tests.ptq.digits import answers, float_answers
from tests.ptq.nets import NETS, export, made, samples


def quantized(tmp_path, name, *, source=None, **how):
    source = source or export(made(name), tmp_path / "float.onnx")
    return mp.quantize(source, samples(name), tmp_path / "q.onnx", **how)


def nothing_in_float(path) -> list:
    """The nodes of the graph that the file is read as, all of them on integers or beside them."""
    graph = mp.load(path)
    assert not [n.name for n in graph.nodes if isinstance(n, FloatOp)]
    return graph.nodes


@pytest.mark.parametrize("bits", ["w8a8", "w4a4", "w2a3", "w1a1"])
@pytest.mark.parametrize("name", NETS)
def test_it_is_read_as_others_compute_it(tmp_path, name, bits):
    found = quantized(tmp_path, name, bits=bits)
    nodes = nothing_in_float(found.path)
    contracted = {n.name: n for n in nodes if isinstance(n, (Conv, Dense))}
    assert not found.float_operators and set(contracted) == {layer.name for layer in found.layers}
    assert all(contracted[layer.name].weight.grid.bits == layer.bits.weights for layer in found.layers)
    assert {layer.bits for layer in found.layers if not layer.kept} == {BitPair.parse(bits)}
    assert all(layer.bits == (8, 8) for layer in found.layers if layer.kept)
    assert found.layers[0].kept and found.layers[-1].kept
    reading = check_reading(load_source(found.path), {"x": samples(name, 4, 5)}, "qonnx")
    assert reading.equal and any(r.kind == "codes" for r in reading.rows), reading.summary
    assert onnx.load(found.path).graph.output[0].name == "y"


@pytest.mark.parametrize("name", NETS)
def test_eight_bits_are_near_float(tmp_path, name):
    found = quantized(tmp_path, name, bits="w8a8")
    assert found.loss < 0.01 and found.same_class > 0.9


@pytest.mark.parametrize("how", [dict(dynamo=True), dict(free_batch=False), dict(opset=11)], ids=str)
@pytest.mark.parametrize("name", ["residual", "mobile"])
def test_other_exports(tmp_path, name, how):
    """torch's newer exporter; a file whose batch is 1; an old opset."""
    source = export(made(name), tmp_path / "float.onnx", **how)
    found = quantized(tmp_path, name, source=source, bits="w6a6")
    nothing_in_float(found.path)
    usual = quantized(tmp_path, name, bits="w6a6")
    assert [(layer.op, layer.bits, layer.macs) for layer in found.layers] == [
        (layer.op, layer.bits, layer.macs) for layer in usual.layers
    ]
    assert found.loss == pytest.approx(usual.loss, rel=0.5)


def test_one_quantizer_a_tensor(tmp_path):
    """The stem's result is read by a convolution and a downsample convolution, and added in float."""
    found = quantized(tmp_path, "residual", bits="w4a4")
    graph = mp.load(found.path)
    quantizers = [n for n in graph.nodes if isinstance(n, Quantize)]
    assert len(quantizers) == len({n.inputs[0] for n in quantizers}) == 6
    readers = {n.name: [m.name for m in graph.nodes if n.outputs[0] in m.inputs] for n in quantizers}
    assert ["/c/c.0/Conv", "/down/down.0/Conv"] in readers.values()
    for add in (n for n in graph.nodes if n.op == "Add"):
        assert all(graph.types[t].quantizer is None for t in add.inputs)


def test_a_concat_is_read_on_several_grids(tmp_path):
    found = quantized(tmp_path, "branches", bits="w4a4")
    graph = mp.load(found.path)
    joined = next(n for n in graph.nodes if n.name == "/Concat")
    one, other = (graph.types[t].quantizer for t in joined.inputs)
    assert one.grid.bits == other.grid.bits == 4 and one.spacing != other.spacing
    assert one.grid.lo == 0 and other.grid.lo < 0  # after a ReLU, after a Tanh


def test_layers_are_kept(tmp_path):
    found = quantized(tmp_path, "mobile", bits="w4a4", keep={"/squeeze/*": 8, "/one/one.2/*": "w3a6", "*Gemm": "w2a4"})
    bits = {layer.name: str(layer.bits) for layer in found.layers}
    assert bits["/squeeze/squeeze.1/Conv"] == bits["/squeeze/squeeze.3/Conv"] == "w8a8"
    assert bits["/one/one.2/one.2.0/Conv"] == "w3a6" and bits["/last/last.4/Gemm"] == "w2a4"
    assert bits["/project/project.0/Conv"] == "w4a4"


def test_a_layer_stays_float(tmp_path):
    found = quantized(tmp_path, "mobile", bits="w4a4", keep={"/project/*": "float"})
    assert found.float_operators == {"/project/project.0/Conv": "it is kept in float"}
    (left,) = (n for n in mp.load(found.path).nodes if isinstance(n, FloatOp))
    assert left.name == "/project/project.0/Conv"


def test_readers_of_one_tensor_get_the_bits_that_one_keeps(tmp_path):
    found = quantized(tmp_path, "residual", bits="w4a4", keep={"/c/c.0/Conv": "w3a6"})
    bits = {layer.name: str(layer.bits) for layer in found.layers}
    assert bits["/c/c.0/Conv"] == "w3a6" and bits["/down/down.0/Conv"] == "w4a6"
    with pytest.raises(UsageError, match="read the same .* kept at 5 and 6 bits"):
        quantized(tmp_path, "residual", bits="w4a4", keep={"/c/c.0/Conv": "w3a6", "/down/down.0/Conv": "w3a5"})


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_biases_are_corrected(tmp_path, rounding):
    """Over the calibration inputs the mean of each output is the float network's, whatever happened before."""
    x, off = samples("residual", 64), {}
    source = export(made("residual"), tmp_path / "float.onnx")
    for correct in (True, False):
        how = dict(bits="w3a4", correct_bias=correct, rounding=rounding)
        path = mp.quantize(source, x, tmp_path / "q.onnx", **how).path
        off[correct] = float(np.abs((answers(path, x) - float_answers(source, x)).mean(0)).max())
    assert off[True] < 1e-5 and off[False] > 1e-4


def test_same_seed_same_file(tmp_path):
    source = export(made("residual"), tmp_path / "float.onnx")

    def bytes_of(seed: int) -> bytes:
        how = dict(bitops="w4a4", samples=16, judged=8, seed=seed)
        return mp.quantize(source, samples("residual", 64), tmp_path / "q.onnx", **how).path.read_bytes()

    assert bytes_of(0) == bytes_of(0) != bytes_of(1)


def test_a_quantized_file_is_refused(tmp_path):
    found = quantized(tmp_path, "perceptron", bits="w8a8").path.rename(tmp_path / "already.onnx")
    with pytest.raises(ModelError, match=r"quantized already: node .* \(IntQuant\)"):
        quantized(tmp_path, "perceptron", source=found, bits="w8a8")


def test_nothing_to_quantize(tmp_path):
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ports = [onnx.helper.make_tensor_value_info(n, 1, ["n", 20]) for n in "xy"]
    graph = onnx.helper.make_graph([node], "relu", ports[:1], ports[1:])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 17)]),
        tmp_path / "r.onnx",
    )
    with pytest.raises(UsageError, match="no layer that can be quantized"):
        quantized(tmp_path, "perceptron", source=tmp_path / "r.onnx", bits="w8a8")
