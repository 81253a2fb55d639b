"""Forms of other exporters, compiled: a bundle against the reference, and against onnx's evaluator on the file."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnxruntime.quantization import quantize_dynamic

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.runtime.bundle import open_bundle
from tests.frontend.test_other_exporters import constant, float_network, node, saved


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
