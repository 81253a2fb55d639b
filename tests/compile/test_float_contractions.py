"""Contractions of float operators in register tiles, of sizes that tiles divide and of others; and functions as vectors."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.compiler.float_regions.contraction import Vectors, _tile
from mpcompile.ir.graph import FloatOp
from mpcompile.runtime.bundle import open_bundle
from tests.compile.test_float_ops import float_op, graph_of
from tests.kernels.harness import LEVELS

NORMAL = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return NORMAL.normal(0, 0.5, shape).astype(np.float32)


CASES = {
    # operator, inputs, output, constants, attributes
    "tiles fit": ("MatMul", {"a": (2, 64, 48), "b": (2, 48, 64)}, (2, 64, 64), {}, {}),
    "none fit": ("MatMul", {"a": (3, 37, 19), "b": (3, 19, 53)}, (3, 37, 53), {}, {}),
    "few columns": ("MatMul", {"a": (2, 41, 29), "b": (2, 29, 3)}, (2, 41, 3), {}, {}),
    "one row": ("MatMul", {"a": (1, 64), "b": (64, 48)}, (1, 48), {}, {}),
    "rows by a matrix": ("MatMul", {"a": (37, 24)}, (37, 50), {"w": weights(24, 50)}, {}),
    "turned": ("Gemm", {"a": (40,)}, (31,), {"w": weights(31, 40), "c": weights(31)}, dict(transB=1)),
    "convolution": ("Conv", {"a": (6, 13, 14)}, (9, 13, 14), {"w": weights(9, 6, 3, 3)}, dict(pads=[1] * 4)),
    "strides": ("Conv", {"a": (4, 17, 16)}, (8, 8, 8), {"w": weights(8, 4, 3, 2)}, dict(strides=[2, 2])),
    "groups": ("Conv", {"a": (6, 12, 12)}, (12, 10, 10), {"w": weights(12, 3, 3, 3)}, dict(group=2)),
    "depthwise": ("Conv", {"a": (8, 9, 16)}, (8, 7, 14), {"w": weights(8, 1, 3, 3)}, dict(group=8)),
    "a sequence": ("Conv", {"a": (5, 30)}, (7, 28), {"w": weights(7, 5, 3)}, {}),
}


@pytest.mark.parametrize(
    "target, case",
    [("native", case) for case in CASES]
    + [(level, case) for level in LEVELS[:2] for case in ("none fit", "convolution")],
)
def test_it_is_what_onnx_runtime_computes(tmp_path, target, case):
    op, inputs, output, constants, attributes = CASES[case]
    node = float_op(op, inputs, {"y": output}, constants, **attributes)
    graph = graph_of([node], {**inputs, "y": output}, list(inputs), ["y"])
    path = compile_model(graph, target=target, output=tmp_path / "m.mpc")
    report = verify(graph, path)
    assert report.equal, report.summary


@pytest.mark.parametrize("rows, columns", [(197, 197), (197, 64), (1, 1000), (64, 3), (7, 7), (512, 512)])
@pytest.mark.parametrize("vectors", [Vectors(16, 20), Vectors(8, 10), Vectors(4, 20)], ids=str)
@pytest.mark.parametrize("padding", [False, True])
def test_a_tile_covers_its_axes_and_stays_in_registers(rows, columns, vectors, padding):
    tile = _tile(rows, columns, vectors, padding)
    assert tile.rows * tile.vectors <= vectors.accumulators and tile.lanes <= vectors.lanes
    assert tile.padded[0] % tile.rows == 0 and tile.padded[1] % (tile.vectors * tile.lanes) == 0
    assert tile.padded[0] >= rows and tile.padded[1] >= columns
    assert padding or tile.padded == (rows, columns)


def function(op: str) -> FloatOp:
    node = helper.make_node(op, ["x"], ["y"])
    ports = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, (1, 37))] for n in "xy"]
    model = helper.make_model(helper.make_graph([node], op, *ports), opset_imports=[helper.make_opsetid("", 17)])
    return FloatOp(op.lower(), ["x"], ["y"], op_type=op, model=model.SerializeToString())


REAL = {"Exp": np.exp, "Tanh": np.tanh, "Sigmoid": lambda x: 1 / (1 + np.exp(-x))}


@pytest.mark.parametrize("op", REAL)
def test_functions_at_the_ends(tmp_path, op):
    graph = graph_of([function(op)], {"x": (37,), "y": (37,)}, ["x"], ["y"])
    path = compile_model(graph, output=tmp_path / "m.mpc")
    over = [87.9, 88.1, 88.5, 88.7, 88.73, 89, 100, 1e30, np.inf, np.nan]
    ends = [-np.inf, -1e30, -104, -88, -87, -1, -0.0, 0, 1e-30, 1, *over]
    x = np.array([*ends, *np.linspace(-20, 20, 17)], np.float32)
    with open_bundle(path, 1) as bundle:
        y = np.asarray(bundle.run(x)).reshape(-1)
    with np.errstate(over="ignore"):
        wanted = REAL[op](x.astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=2e-38)
