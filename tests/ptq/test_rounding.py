"""GPTQ: what it makes less, that its matrices are what convolutions multiply, and what it wins in a network."""

from itertools import product

import numpy as np
import onnx
import pytest
import torch
from torch.nn.functional import conv1d, conv2d

import mpcompile as mp
from mpcompile.errors import UsageError
from mpcompile.frontend import load_source
from mpcompile.ptq.gptq import DAMPINGS, SHARES, Problem, fitted
from mpcompile.ptq.grids import signed
from mpcompile.ptq.patches import patches, window_of
from mpcompile.ptq.rounding import Seen, best_damping
from mpcompile.witness.reading import check_reading
from tests.ptq.digits import answers, float_answers
from tests.ptq.nets import NETS, export, made, samples


def problem(groups=2, outputs=3, size=5, rows=400, seed=0):
    """Weights [groups, O, K] for a grid with steps of 0.5 and 1, and correlated inputs [groups, rows, K]."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups, rows, size)) @ rng.normal(size=(groups, size, size)) + 1
    scale = np.broadcast_to(np.array([0.5, 1.0, 0.5])[None, :outputs, None], (groups, outputs, size))
    return rng.normal(size=(groups, outputs, size)), x, scale


def error(w, q, x) -> np.ndarray:
    """[groups, O]"""
    return (((w - q) @ x.transpose(0, 2, 1)) ** 2).mean(2)


def test_where_inputs_are_independent_it_is_the_nearest():
    w, _, scale = problem()
    grid = signed(3, np.ones(1))
    squares = np.stack([np.diag([5.0, 1.0, 3.0, 2.0, 4.0])] * 2)
    np.testing.assert_array_equal(
        Problem(w, squares, 0.01).gptq(scale, grid), np.clip(np.rint(w / scale), -4, 3) * scale
    )


@pytest.mark.parametrize("seed", range(5))
def test_it_is_nearer_to_the_best_than_the_nearest(seed):
    w, x, scale = problem(size=4, seed=seed)
    grid = signed(3, np.ones(1))
    squares = x.transpose(0, 2, 1) @ x
    found = error(w, Problem(w, squares, 0.01).gptq(scale, grid), x)
    nearest = error(w, np.clip(np.rint(w / scale), -4, 3) * scale, x)
    every = np.array(list(product(range(-4, 4), repeat=4)), float)  # [4096, K]
    best = np.array(
        [
            [min(error(w[g, o][None, None], (every * scale[g, o])[None], x[g][None])[0]) for o in range(3)]
            for g in range(2)
        ]
    )
    assert (found >= best - 1e-9).all() and found.sum() < 0.95 * nearest.sum()


@pytest.mark.parametrize("seed", range(5))
def test_descent_ends_where_no_single_code_is_better(seed):
    w, x, scale = problem(size=6, seed=seed)
    grid = signed(2, np.ones(1))
    squares = x.transpose(0, 2, 1) @ x
    before = Problem(w, squares, 0.01).gptq(scale, grid)
    found = Problem(w, squares, 0.01).descended(before, scale, grid)
    least, at_first = objective(found, w, squares), objective(before, w, squares)
    assert (least <= at_first * (1 + 1e-12)).all() and least.sum() < at_first.sum()
    for i, code in product(range(6), range(-2, 2)):
        other = found.copy()
        other[:, :, i] = code * scale[:, :, i]
        assert (objective(other, w, squares) >= least * (1 - 1e-9)).all()


def objective(values, w, squares) -> np.ndarray:
    """[groups, O], what is made least, by hand."""
    off = values - w
    sound = [h + 0.01 * np.diag(h).mean() * np.eye(len(h)) for h in squares]
    return np.array([[e @ h @ e for e in rows] for rows, h in zip(off, sound)])


def test_scales_are_those_that_leave_the_least():
    """Of two groups of three rows, whose scales are the rows' own: two rows share one."""
    w, x, _ = problem(size=6)
    squares = x.transpose(0, 2, 1) @ x
    owner = np.array([[0, 1, 2], [3, 4, 0]])
    grid = signed(2, np.float32([0.7, 1.0, 2.5, 0.4, 0.9]))
    values, found = fitted(Problem(w, squares, 0.01), owner, grid)
    codes = values / found.scale[owner][:, :, None]
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-6)
    assert set(np.rint(codes).ravel()) <= {-2, -1, 0, 1}
    got = np.bincount(owner.ravel(), objective(values, w, squares).ravel())
    for share in SHARES:
        scale = np.broadcast_to((share * grid.scale)[owner][:, :, None], w.shape)
        other = Problem(w, squares, 0.01).gptq(scale, grid)
        assert (got <= np.bincount(owner.ravel(), objective(other, w, squares).ravel()) * (1 + 1e-5)).all()
    assert (found.scale != grid.scale).any()


def test_the_fewer_inputs_the_more_damping():
    """Errors of inputs that no weight can make up for: of few rows they are learned by heart, of many they are not."""
    found = {}
    for rows in (24, 4000):
        rng, halves = np.random.default_rng(0), []
        w = rng.normal(size=(1, 8, 16))
        for _ in range(2):
            x = rng.normal(size=(1, rows, 16)).astype(np.float32)
            halves.append(Seen(squares=True))
            halves[-1].add(x, x + rng.normal(0, 0.3, x.shape).astype(np.float32))
        found[rows] = best_damping(halves, w, np.full(w.shape, 0.05), signed(8, np.full((8, 1), 0.05)))
    assert found[24] == DAMPINGS[-1] > found[4000]


def test_errors_are_those_of_the_outputs():
    rng, seen = np.random.default_rng(1), Seen(squares=True)
    x = rng.normal(1, 1, (2, 50, 6)).astype(np.float32)
    quantized = np.rint(2 * x) / 2
    seen.add(x, quantized)
    w, values = rng.normal(size=(2, 2, 3, 6))
    exact, found = w @ x.transpose(0, 2, 1), values @ quantized.transpose(0, 2, 1)
    assert seen.error(w, values) + (exact**2).sum() == pytest.approx(((exact - found) ** 2).sum(), rel=1e-4)
    off = exact - exact.mean(2, keepdims=True), found - found.mean(2, keepdims=True)
    about = seen.about_means().error(w, values)
    assert about + (off[0] ** 2).sum() == pytest.approx(((off[0] - off[1]) ** 2).sum(), rel=1e-4)


def test_blocks_change_nothing(monkeypatch):
    w, x, scale = problem(size=11, groups=1)
    squares, grid = x.transpose(0, 2, 1) @ x, signed(3, np.ones(1))
    whole = Problem(w, squares, 0.01).gptq(scale, grid)
    monkeypatch.setattr("mpcompile.ptq.gptq.BLOCK", 4)
    np.testing.assert_allclose(Problem(w, squares, 0.01).gptq(scale, grid), whole, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    "how",
    [dict(), dict(strides=2, pads=1), dict(pads=2, dilations=2), dict(strides=3, pads=(1, 0), dilations=1)],
    ids=str,
)
@pytest.mark.parametrize("axes", [1, 2])
def test_patches_times_weights_is_the_convolution(axes, how, groups):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, *(9, 11)[:axes])).astype(np.float32)
    w = rng.normal(size=(6, 6 // groups, *(3, 2)[:axes])).astype(np.float32)
    pads = how.get("pads", 0)
    pads = pads[:axes] if isinstance(pads, tuple) else (pads,) * axes
    strides, dilations = how.get("strides", 1), how.get("dilations", 1)
    attributes = dict(strides=[strides] * axes, pads=[*pads, *pads], dilations=[dilations] * axes, group=groups)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    seen = patches(x, window_of(node, w, x.shape[2:]))
    got = w.reshape(groups, 6 // groups, -1) @ seen.transpose(0, 2, 1)  # [groups, O, rows]
    conv = {1: conv1d, 2: conv2d}[axes]
    y = conv(torch.from_numpy(x), torch.from_numpy(w), None, strides, pads, dilations, groups).numpy()
    np.testing.assert_allclose(got.reshape(6, -1), y.swapaxes(0, 1).reshape(6, -1), atol=1e-4)


def test_some_of_the_patches():
    x = np.arange(2 * 4 * 6 * 5, dtype=np.float32).reshape(2, 4, 6, 5)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], group=2)
    window = window_of(node, np.ones((4, 2, 3, 3), np.float32), (6, 5))
    every = patches(x, window).reshape(2, 2, 6, 5, 18)
    np.testing.assert_array_equal(patches(x, window, 60), every.reshape(2, 60, 18))
    np.testing.assert_array_equal(patches(x, window, 59), every[:, :, ::2].reshape(2, 30, 18))
    rows = x.reshape(-1, 5)
    np.testing.assert_array_equal(patches(x, None, 16), rows[None, ::3])


def test_padding_that_the_file_leaves_open():
    x, w = np.arange(14, dtype=np.float32).reshape(1, 1, 14), np.ones((1, 1, 3), np.float32)
    for auto, first in (("SAME_UPPER", [0, 1, 2]), ("SAME_LOWER", [0, 0, 1])):
        node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=[2], auto_pad=auto)
        seen = patches(x, window_of(node, w, (14,)))
        assert seen.shape == (1, 7, 3) and seen[0, 0].tolist() == first


@pytest.mark.parametrize("name", NETS)
def test_networks(tmp_path, name):
    """Nearer to the float network than with weights rounded to the nearest; still what others compute."""
    source = export(made(name), tmp_path / "float.onnx")
    x = samples(name, 96)
    nearest, found = (
        mp.quantize(source, x, tmp_path / f"{rounding}.onnx", bits="w2a8", keep={"*": "w2a8"}, rounding=rounding)
        for rounding in ("nearest", "gptq")
    )
    assert found.loss < {"residual": 1.05, "up": 0.9}.get(name, 0.8) * nearest.loss
    reading = check_reading(load_source(found.path), {"x": samples(name, 4, 5)}, "qonnx")
    assert reading.equal, reading.summary
    off = answers(found.path, x) - float_answers(source, x)
    off = off.mean((0, *range(2, off.ndim)))  # of each channel
    assert np.abs(off).max() < 1e-3 * np.abs(float_answers(source, x)).max()  # biases are corrected on the way


def test_other_roundings_are_refused(tmp_path):
    source = export(made("perceptron"), tmp_path / "float.onnx")
    with pytest.raises(UsageError, match="rounding 'stochastic': nearest, gptq would be accepted"):
        mp.quantize(source, samples("perceptron"), tmp_path / "q.onnx", bits="w4a4", rounding="stochastic")
