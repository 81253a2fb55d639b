"""Forms of other exporters, compiled: a bundle against the reference, and against onnx's evaluator on the file."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import quantize_dynamic

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.cli.command_line import main
from mpcompile.errors import UsageError
from mpcompile.runtime.bundle import open_bundle
from tests.frontend.test_batch_of_one import attention
from tests.frontend.test_other_exporters import constant, float_network, node, saved
from tests.frontend.test_types import typed


def rows_network(folder):
    """Two products over rows; the batch is free."""
    rng = np.random.default_rng(1)
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"]), node("MatMul", ["r", "v"], ["y"])]
    constants = [constant(rng.normal(0, 0.3, (8, 16)), "w"), constant(rng.normal(0, 0.3, (16, 4)), "v")]
    return saved(folder, nodes, {"x": ["N", 5, 8]}, {"y": ["N", 5, 4]}, constants)


@pytest.mark.parametrize("network, shape", [(float_network, (3, 8, 8)), (rows_network, (5, 8))])
def test_dynamic_quantization(tmp_path, network, shape):
    """Also over samples of a batch, whose scales differ."""
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(network(tmp_path), path)
    bundle = compile_model(path, output=tmp_path / "dynamic.mpc")
    x = np.random.default_rng(0).standard_normal((3, *shape), np.float32) * np.array([1, 5, 0.2], np.float32).reshape(
        -1, *[1] * len(shape)
    )
    with open_bundle(bundle, 1) as opened:
        assert verify(path, opened).equal
        found = opened.run(x)
        assert any(part["weight_grid"]["hi"] > 64 for row in opened.layers for part in row.get("parts", ()))
    evaluator = ReferenceEvaluator(onnx.load(path))
    for mine, sample in zip(found, x):
        theirs = np.asarray(evaluator.run(None, {"x": sample[None]})[0])[0]
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_an_attention_in_a_batch_of_one(tmp_path):
    """Its heads are split by a transpose that puts 3 in front, as timm writes it: in float, to ONNX Runtime's numbers."""
    path = attention(tmp_path, [1, 5, 24])
    bundle = compile_model(path, output=tmp_path / "attention.mpc")
    x = np.random.default_rng(0).standard_normal((1, 5, 24), np.float32)
    with open_bundle(bundle, 1) as opened:
        assert verify(path, opened).equal
        found = opened.run(x)
    theirs = onnxruntime.InferenceSession(str(path)).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-5)


def test_types_of_inputs_and_outputs(tmp_path, capsys):
    """Tokens, a mask and a table in; an index, truth values, codes and real values out: as ONNX Runtime gives them."""
    nodes = [
        node("Gather", ["table", "ids"], ["e"]),
        node("Where", ["keep", "e", "low"], ["v"]),
        node("ArgMax", ["v"], ["at"], axis=2, keepdims=0),
        node("GatherElements", ["v", "ids2"], ["picked"], axis=2),
        node("GreaterOrEqual", ["picked", "low2"], ["positive"]),
        node("QuantizeLinear", ["v", "s", "z"], ["codes"]),
    ]
    inputs = {
        "ids": (TensorProto.INT64, ["N", 5]),
        "ids2": (TensorProto.INT32, ["N", 5, 1]),
        "keep": (TensorProto.BOOL, ["N", 5, 3]),
    }
    outputs = {
        "at": (TensorProto.INT64, ["N", 5]),
        "positive": (TensorProto.BOOL, ["N", 5, 1]),
        "codes": (TensorProto.INT8, ["N", 5, 3]),
        "v": (TensorProto.FLOAT, ["N", 5, 3]),
    }
    rng = np.random.default_rng(2)
    values = {"table": rng.standard_normal((7, 3)), "low": -3, "low2": 0.25, "s": 0.02}
    constants = [*(constant(v, n) for n, v in values.items()), constant(5, "z", np.int8)]
    path = typed(tmp_path, nodes, inputs, outputs, constants)
    bundle = compile_model(path, output=tmp_path / "typed.mpc")
    given = {
        "ids": rng.integers(-7, 7, (4, 5)),
        "ids2": rng.integers(-3, 3, (4, 5, 1)).astype(np.int32),
        "keep": rng.integers(0, 2, (4, 5, 3)).astype(bool),
    }
    theirs = onnxruntime.InferenceSession(str(path)).run(None, given)
    with open_bundle(bundle, 1) as opened:
        assert [p.dtype for p in opened.inputs] == ["int64", "int32", "bool"]
        assert verify(path, opened).equal
        found = opened.run(given)
        assert isinstance(found, dict)
        for (name, mine), expected in zip(found.items(), theirs):
            assert mine.dtype == expected.dtype, name
            np.testing.assert_array_equal(mine, expected, name)
        assert opened.run({n: x[0] for n, x in given.items()})["positive"].dtype == bool
        assert opened.bench(0.01).seconds > 0
        with pytest.raises(
            UsageError, match=r"input ids holds integers beyond ±16777216, which the network, computing in"
        ):
            opened.run(given | {"ids": given["ids"] + (1 << 24) + 9})
    np.savez(tmp_path / "x.npz", **given)
    assert main(["run", str(bundle), "--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz")]) == 0
    assert "positive: (4, 5, 1) from 0 to 1" in capsys.readouterr().out
    with np.load(tmp_path / "y.npz") as kept:
        assert [kept[n].dtype for n in ("at", "positive", "codes", "v")] == [np.int64, np.bool_, np.int8, np.float32]
    assert main(["inspect", str(bundle)]) == 0
    told = capsys.readouterr().out
    assert "input ids: int64 (5,)" in told and "output codes: int8 (5, 3)" in told
