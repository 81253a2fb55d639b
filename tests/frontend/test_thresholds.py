"""FINN's MultiThreshold against qonnx's executor: as the quantizer that it is, or counted."""

import numpy as np
import pytest

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.reference.interpret import interpret
from tests.frontend.outside_executors import by_qonnx
from tests.frontend.test_other_exporters import QONNX, constant, node, saved

X = [1, 3, 5, 4]


def thresholds_of(rows, folder, shape=X, domain=QONNX, **attributes):
    """A model of one MultiThreshold and a convolution that reads it."""
    weights = np.random.default_rng(5).normal(0, 0.3, (2, shape[1], *[1] * (len(shape) - 2)))
    weight = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND", "domain": QONNX}
    nodes = [
        node("MultiThreshold", ["x", "t"], ["m"], "threshold", domain=domain, out_dtype="INT4", **attributes),
        node("Quant", ["w", "ws", "zero", "bits"], ["wq"], **weight),
        node("Conv", ["m", "wq"], ["y"], kernel_shape=list(weights.shape[2:])),
    ]
    values = {"t": rows, "w": weights, "ws": 0.1, "zero": 0, "bits": 4}
    constants = [constant(v, n) for n, v in values.items()]
    domains = list(dict.fromkeys([QONNX, domain]))
    return saved(folder, nodes, {"x": shape}, {"y": [1, 2, *shape[2:]]}, constants, 17, domains)


UNIFORM = {
    "unsigned": (np.arange(15) * 0.25 + 0.125, dict(out_scale=0.25), (-1, 5)),
    "signed": (np.arange(15) * 0.5 - 3.5, dict(out_scale=0.5, out_bias=-4.0), (-6, 6)),
    "integers": (np.arange(7) + 1.0, dict(), (-3, 12)),
    "by a factor": (np.arange(7) * 3.0 + 1.5, dict(), (-5, 30)),
    "bipolar": (np.zeros(1), dict(out_scale=2.0, out_bias=-1.0), (-2, 2)),
}


@pytest.mark.parametrize("case", UNIFORM)
def test_thresholds_of_a_rounding_are_a_quantizer(tmp_path, case):
    row, attributes, (low, high) = UNIFORM[case]
    path = thresholds_of(row[None], tmp_path, **attributes)
    graph = load(path)
    assert [n.op for n in graph.nodes if n.op == "FloatOp"] == [] and graph.nodes[-1].op == "Conv"
    compare(path, graph, row, low, high)


def compare(path, graph, limits, low, high) -> None:
    """Over random numbers, and at, just below and just above every threshold."""
    rng = np.random.default_rng(2)
    limits = np.asarray(limits, np.float32).reshape(-1)
    below, above = (np.where(limits == 0, end / 1e30, np.nextafter(limits, end)) for end in np.float32([-1, 1]) * 1e9)
    near = np.concatenate([limits, below, above])  # beside 0 no subnormal number
    size = int(np.prod(graph.types["x"].shape))
    for x in (rng.uniform(low, high, size), rng.choice(near, size), rng.choice(near, size)):
        x = x.astype(np.float32).reshape(graph.types["x"].shape)
        np.testing.assert_allclose(interpret(graph, {"x": x})["y"], by_qonnx(path, x)["y"], rtol=1e-5, atol=1e-5)


COUNTED = {
    "uneven": (np.array([[-2, 0, 0.1, 5, 9]]), dict()),
    "per channel": (np.sort(np.random.default_rng(1).normal(0, 2, (3, 15)), 1), dict(out_scale=0.1, out_bias=-0.8)),
    "unsorted": (np.array([[3, -1, 2]]), dict(out_scale=0.5)),
    "those of a rounding, but for its float32": (
        np.arange(15)[None] * 0.5 - 3.75,
        dict(out_scale=0.5, out_bias=-4.0),
    ),
    "around 0, but for its float32": (np.arange(3)[None] * 2.0 - 2, dict(out_scale=2.0, out_bias=-3.0)),
    "equal ones": (np.array([[1, 1, 1, 2]]), dict()),
    "never reached": (np.array([[0, 1, np.inf]]), dict(out_scale=3.0)),
    "one, not at 0": (np.array([[0.5]]), dict(out_scale=2.0, out_bias=-1.0)),
    "evenly, from elsewhere": (np.arange(7)[None] * 0.5 + 0.1, dict(out_scale=0.5)),
}


@pytest.mark.parametrize("case", COUNTED)
def test_other_thresholds_are_counted_and_lie_on_a_grid(tmp_path, case):
    """The convolution behind them is of integers all the same."""
    rows, attributes = COUNTED[case]
    path = thresholds_of(rows, tmp_path, domain="finn.custom_op.general", **attributes)
    graph = load(path)
    assert [n.op_type for n in graph.nodes if n.op == "FloatOp"] == ["MultiThreshold"]
    assert graph.nodes[-1].op == "Conv"
    compare(path, graph, rows[np.isfinite(rows)], -4, 10)


def test_a_bias_that_is_off_the_grid_stays_real(tmp_path):
    path = thresholds_of(np.array([[0.0, 1, 2]]), tmp_path, out_scale=1.0, out_bias=0.3)
    graph = load(path)
    assert [n.op_type for n in graph.nodes if n.op == "FloatOp"] == ["MultiThreshold", "Conv"]
    compare(path, graph, [0, 1, 2], -1, 4)


def test_channels_last(tmp_path):
    rows = np.sort(np.random.default_rng(1).normal(0, 2, (4, 7)), 1)
    path = thresholds_of(rows, tmp_path, data_layout="NHWC")
    compare(path, load(path), rows, -4, 4)


REFUSED = {
    "channels": (
        np.zeros((2, 3)),
        {},
        r"thresholds of shape \[2, 3\] over 3 channels; \[1, T\] or \[3, T\], none of them NaN",
    ),
    "nan": (np.array([[0, np.nan]]), {}, r"thresholds of shape \[1, 2\] over 3 channels; .* none of them NaN"),
    "scale": (
        np.zeros((1, 3)),
        {"out_scale": -1.0},
        r"out_scale -1 and out_bias 0; finite ones, a scale above 0, would be",
    ),
    "layout": (
        np.zeros((1, 3)),
        {"data_layout": "CHWN"},
        r"data_layout CHWN of \[1, 3, 5, 4\]; NC, NCW, NCHW, NWC, NHWC",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path, case):
    rows, attributes, said = REFUSED[case]
    path = thresholds_of(rows, tmp_path, **attributes)
    with pytest.raises(ModelError, match=rf"node threshold \(MultiThreshold\): {said}"):
        load(path)
