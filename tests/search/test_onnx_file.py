"""A float ONNX file as a module that can be searched: ONNX's own test cases, files of torch.onnx, and whole searches.
ONNX Runtime, ONNX's recorded outputs and torch's module that a file was made of say what is right."""

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests
from torch import nn

import mpcompile as mp
from mpcompile.api.float_file import module_of
from mpcompile.cli import main
from mpcompile.errors import ModelError, UsageError
from mpcompile.search.trace.network import trace
from mpcompile.search.trace.onnx_file.network import OnnxNetwork
from mpcompile.search.trace.onnx_file.operators import MAKERS
from tests.search import modules
from tests.search.test_any_module import OPTIONS, data_for, images, made

LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization"}
WITHOUT_NUMBERS = {"test_reduce_max_empty_set", "test_reduce_min_empty_set", "test_reshape_allowzero_reordered"}


def node_cases():
    """(name, model of the first output with all inputs but the first as constants, input, output) of ONNX's tests of one
    node that a module could be made of."""
    for case in load_model_tests(kind="node"):
        folder = Path(case.model_dir)
        model = onnx.load(folder / "model.onnx")
        graph = model.graph
        if len(graph.node) != 1 or graph.node[0].domain or graph.node[0].op_type not in LAYERS | set(MAKERS):
            continue
        if not all(v.type.HasField("tensor_type") for v in graph.input):
            continue
        data = [onnx.load_tensor(folder / f"test_data_set_0/input_{i}.pb") for i in range(len(graph.input))]
        if any(t.data_type not in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL) for t in data):
            continue
        arrays = [numpy_helper.to_array(t) for t in data]
        if arrays[0].dtype != np.float32 or case.name in WITHOUT_NUMBERS:
            continue
        wanted = numpy_helper.to_array(onnx.load_tensor(folder / "test_data_set_0/output_0.pb"))
        for value, array in list(zip(graph.input, arrays))[1:]:
            graph.initializer.append(numpy_helper.from_array(array, value.name))
        del graph.output[1:]
        graph.node[0].name = "it"
        yield case.name, onnx.shape_inference.infer_shapes(model, data_prop=True), arrays[0], wanted


def test_a_node_of_onnx_s_own_tests_is_computed_as_recorded_or_refused_by_name():
    right, refused = set(), set()
    for name, model, x, wanted in node_cases():
        try:
            module = OnnxNetwork(model, "file.onnx").eval()
        except ModelError as error:
            assert "file.onnx: node it (" in str(error) and "\n" not in str(error), name
            refused.add(model.graph.node[0].op_type)
            continue
        with torch.no_grad():
            found = module(torch.from_numpy(x.copy()))
        found = (found if isinstance(found, torch.Tensor) else found[0]).numpy()
        assert found.shape == wanted.shape, name
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5, err_msg=name)
        right.add(model.graph.node[0].op_type)
    of_batches = {"Split", "Concat", "Gather", "Slice", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
    in_parts = {"AveragePool", "Cast", "Clip", "ConvTranspose", "Dropout", "Expand", "PRelu", "Resize"}
    assert refused <= of_batches | in_parts | {"BatchNormalization"}
    assert len(right) > 50 and {"Conv", "Gemm", "Resize", "Pad", "Slice", "LayerNormalization"} <= right


def exported(module: nn.Module, example: torch.Tensor, path: Path, dynamo: bool, **options) -> Path:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            torch.onnx.export(module, (example,), path, dynamo=dynamo, verbose=False, **options)
        finally:
            logging.disable(logging.NOTSET)
    return path


@pytest.mark.parametrize("name", modules.MODULES)
def test_a_file_of_torch_computes_what_its_module_does(name, tmp_path):
    module, samples = modules.module(name)
    file = exported(module, samples[:1], tmp_path / "float.onnx", dynamo=False)
    found = module_of(file, samples)
    with torch.no_grad():
        np.testing.assert_allclose(found(samples), module(samples), rtol=1e-4, atol=1e-5)
    wanted, got = trace(module, samples).planned, trace(found, samples).planned
    layers = {n: (p.macs, p.tokens) for n, p in got.layers.items()}
    if (
        name == "preactivation"
    ):  # a layer that the module calls twice is two in the file, each of which can be quantized
        assert layers.pop("shared") == layers.pop("shared_1") and list(wanted.floats) == ["shared"]
    assert layers == {n: (p.macs, p.tokens) for n, p in wanted.layers.items()}
    assert [n for n in got.layers if n in layers] == list(wanted.layers)
    assert got.signed.items() >= {t: s for t, s in wanted.signed.items() if t in got.signed}.items()
    assert len(got.functions) >= len(wanted.functions)  # a module's own may be calls of functions


@pytest.mark.parametrize("name", ["resnet", "mobilenet-v3", "shufflenet", "deit"])
def test_files_of_torch_s_newer_exporter(name, tmp_path):
    module, samples = modules.module(name)
    file = exported(module, samples[:1], tmp_path / "float.onnx", dynamo=True)
    found = module_of(file, samples)
    with torch.no_grad():
        np.testing.assert_allclose(found(samples), module(samples), rtol=1e-4, atol=1e-5)
    assert len(trace(found, samples).planned.layers) == len(trace(module, samples).planned.layers)


class Functions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(6))

    def forward(self, x):
        a, b, c, d, e, f = self.layers
        x = nn.functional.silu(a(x))
        x = nn.functional.gelu(b(x))
        x = nn.functional.mish(c(x))
        x = nn.functional.hardswish(d(x))
        x = nn.functional.gelu(e(x), approximate="tanh")
        return f(x) * torch.sigmoid(x)


def test_functions_that_were_written_in_pieces_are_found(tmp_path):
    torch.manual_seed(0)
    module, x = Functions().eval(), torch.randn(3, 4, 5, 5)
    file = exported(module, x[:1], tmp_path / "float.onnx", dynamo=False, opset_version=13)
    operators = {n.op_type for n in onnx.load(file).graph.node}
    assert not operators & {"Gelu", "Mish", "HardSwish"}
    found = module_of(file, x)
    kinds = [type(m) for m in found.modules()]
    for kind in (nn.SiLU, nn.Mish, nn.Hardswish, nn.Sigmoid):
        assert kinds.count(kind) == 1, kind
    assert [m.approximate for m in found.modules() if isinstance(m, nn.GELU)] == ["none", "tanh"]
    with torch.no_grad():
        np.testing.assert_allclose(found(x), module(x), rtol=1e-4, atol=1e-5)


def test_norms_stay_what_they_are_where_the_file_has_them(tmp_path):
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    )
    module[1].running_mean.uniform_(-1, 1)
    x = torch.randn(2, 1, 8, 8)
    options = {"do_constant_folding": False, "training": torch.onnx.TrainingMode.PRESERVE}
    file = exported(module.eval(), x[:1], tmp_path / "float.onnx", dynamo=False, **options)
    found = module_of(file, x)
    assert any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    with torch.no_grad():
        np.testing.assert_allclose(found(x), module(x), rtol=1e-4, atol=1e-5)


def written(path: Path, nodes: list, constants: dict, shape=("n", 4), out=("n", 4)) -> Path:
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", shape), ("y", out))]
    values = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], values)
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_what_cannot_be_searched_is_one_line(tmp_path):
    x = torch.randn(4, 4)
    w = np.eye(4, dtype=np.float32)
    product = helper.make_node("MatMul", ["x", "w"], ["h"], name="first")
    mixed = [product, helper.make_node("Softmax", ["h"], ["y"], name="over", axis=0)]
    with pytest.raises(ModelError, match="does it compute over its batch"):
        module_of(written(tmp_path / "batch.onnx", mixed, {"w": w}, (1, 4), (1, 4)), x)
    with pytest.raises(ModelError, match="mixes the samples of a batch"):
        module_of(written(tmp_path / "batch.onnx", mixed, {"w": w}, (2, 4), (2, 4)), x)
    whole = [product, helper.make_node("CumSum", ["h", "a"], ["y"], name="sums")]
    with pytest.raises(ModelError, match=r"many.onnx: node sums \(CumSum\) cannot be searched: no module computes it"):
        module_of(written(tmp_path / "many.onnx", whole, {"w": w, "a": np.int64(1)}), x)
    with pytest.raises(UsageError, match="axis 1 of input x is 4 in the model, not 5"):
        module_of(written(tmp_path / "size.onnx", whole, {"w": w, "a": np.int64(1)}), torch.randn(4, 5))
    with pytest.raises(UsageError, match="there is no file"):
        mp.search(str(tmp_path / "none.onnx"), (x, x), (x, x), budget="1 ms", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_float_file_becomes_a_verified_bundle(tmp_path):
    module = made("mobilenet-v3").eval()
    train, val = images(192, 0), images(96, 1)
    file = exported(module, train[0][:1], tmp_path / "float.onnx", dynamo=False)
    found = mp.search(file, train, val, budget="100 ms", epochs=1, out=tmp_path / "run", options=OPTIONS)
    checked = json.loads((tmp_path / "run/points/target-100ms/checked.json").read_text())["result"]
    assert checked["verify"]["equal"], checked["verify"]["summary"]
    assert found.floats == {} and "se.fc1" in found.best.bits
    with mp.open_bundle(found.best.bundle, threads=1) as bundle, torch.no_grad():
        answers = bundle.run(val[0].numpy())
        assert (answers.argmax(1) == found.best.model(val[0]).numpy().argmax(1)).mean() > 0.95


NETS = """
from tests.search.test_any_module import data_for

def task():
    return "mlp.onnx", data_for("mlp", 96, 0), data_for("mlp", 48, 1)
"""
TOML = """
module = "nets_of_a_file:task"
search = {weights = [2, 8], activations = [2, 8], epochs = 1, warmup = 0, batch = 16, method = "uniform"}
objective = {targets = ["w2a2"]}
pretrain = {epochs = 0}
retrain = {epochs = 1, still = 0}
baselines = {uniform = [], float = false, int8 = false}
measure = {threads = 1, rounds = 1}
"""


def test_a_configuration_searches_a_file_beside_it(tmp_path, capsys):
    (tmp_path / "nets_of_a_file.py").write_text(NETS)
    (tmp_path / "search.toml").write_text(TOML)
    exported(made("mlp").eval(), data_for("mlp", 1, 0)[0], tmp_path / "mlp.onnx", dynamo=False)
    assert main(["search", str(tmp_path / "search.toml"), "-o", str(tmp_path / "run")]) == 0
    assert "target-w2a2" in capsys.readouterr().out
