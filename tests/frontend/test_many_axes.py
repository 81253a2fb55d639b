"""Operators by element over more than three axes, or over none, which layers have no map for; and what moves codes."""

import numpy as np
import pytest

from mpcompile.api.verify import fused
from mpcompile.frontend import load, load_source
from mpcompile.ir.layer import Layer
from mpcompile.witness.reading import check_reading
from tests.frontend.test_other_exporters import both, constant, node, saved

QUANTIZED = [
    node("QuantizeLinear", ["x", "s", "z"], ["q"]),
    node("DequantizeLinear", ["q", "s", "z"], ["d"]),
]
GRIDS = [
    constant(0.05, "s"),
    constant(3, "z", np.int8),
    constant(0.5, "half"),
    constant([-0.5], "low"),
    constant(2.0, "high"),
]


def test_by_element_over_four_axes(tmp_path):
    """As attention has them, between quantizers: layers on integers, of the same numbers."""
    nodes = [
        *QUANTIZED,
        node("Clip", ["d", "low", "high"], ["c"]),
        node("Mul", ["c", "half"], ["m"]),
        node("PRelu", ["m", "half"], ["p"]),
        node("QuantizeLinear", ["p", "s", "z"], ["q2"]),
        node("DequantizeLinear", ["q2", "s", "z"], ["y"]),
    ]
    constants = [c for c in GRIDS if c.name != "low"] + [constant(-0.5, "low")]
    path = saved(tmp_path, nodes, {"x": [1, 2, 3, 4, 5]}, {"y": [1, 2, 3, 4, 5]}, constants)
    mine, theirs = both(path, np.random.default_rng(0).standard_normal((1, 2, 3, 4, 5), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    assert load(path).types["y"].shape == (2, 3, 4, 5)
    assert any(isinstance(n, Layer) for n in fused(path).nodes)


def test_a_number_of_each_sample(tmp_path):
    nodes = [
        node("ReduceSum", ["x", "axes"], ["t"], keepdims=0),
        node("QuantizeLinear", ["t", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    path = saved(tmp_path, nodes, {"x": ["N", 4]}, {"y": ["N"]}, [*GRIDS[:2], constant([1], "axes", np.int64)])
    mine, theirs = both(path, np.array([[0.1, 0.2, 0.3, -1.1]], np.float32))
    np.testing.assert_allclose(mine, theirs)
    assert any(isinstance(n, Layer) for n in fused(path).nodes)


@pytest.mark.parametrize("op, given, shape", [("Tile", [1, 2, 1], [1, 6, 4]), ("Expand", [1, 3, 4], [1, 3, 4])])
def test_codes_that_a_float_operator_moves(tmp_path, op, given, shape):
    """Between operators on codes: the file's tensor is codes, the graph's is real, and the witness compares both."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node(op, ["q", "given"], ["t"]),
        node("QLinearLeakyRelu", ["t", "s", "z", "s", "z"], ["r"], domain="com.microsoft", alpha=0.1),
        node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    constants = [*GRIDS[:2], constant(given, "given", np.int64)]
    first = [1, 3, 4] if op == "Tile" else [1, 1, 4]
    path = saved(tmp_path, nodes, {"x": first}, {"y": shape}, constants, 17, ["com.microsoft"])
    x = np.random.default_rng(0).standard_normal(first, np.float32)
    found = check_reading(load_source(path), {"x": x}, "onnxruntime")
    assert found.equal and found.compared, found.summary
    assert "t" in {row.tensor for row in found.rows}
    mine, theirs = both(path, x)
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_both_parts_of_a_split_of_codes(tmp_path):
    """Each is quantized again by itself for what reads it."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Split", ["q", "sizes"], ["a", "b"], axis=1),
        *(
            node("QLinearLeakyRelu", [t, "s", "z", "s", "z"], [f"{t}r"], domain="com.microsoft", alpha=0.1)
            for t in "ab"
        ),
        node("QLinearAdd", ["ar", "s", "z", "br", "s", "z", "s", "z"], ["t"], domain="com.microsoft"),
        node("DequantizeLinear", ["t", "s", "z"], ["y"]),
    ]
    constants = [*GRIDS, constant([2, 2], "sizes", np.int64)]
    path = saved(tmp_path, nodes, {"x": [1, 4, 5]}, {"y": [1, 2, 5]}, constants, 17, ["com.microsoft"])
    mine, theirs = both(path, np.random.default_rng(0).standard_normal((1, 4, 5), np.float32))
    np.testing.assert_allclose(mine, theirs, rtol=1e-6)
