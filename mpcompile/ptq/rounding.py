"""Weights rounded one after another, each so that those that follow make up for its error on the calibration inputs: GPTQ
(OPTQ), layer by layer, behind all that is quantized before.

    min ‖W·X − Ŵ·X̂‖²        X: the layer's inputs in the float network, X̂: in the quantized one

In units of the grid, column i is rounded and its error, over the inverse of X̂·X̂ᵀ, is taken off the columns after it.
Biases are corrected on the way: the mean of each output channel is the float network's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.observe import Progress
from mpcompile.ptq.patches import Window, patches, window_of
from mpcompile.ptq.places import Layer, Places
from mpcompile.ptq.stages import Stages
from mpcompile.ptq.write import QuantizedWeights

ROUNDINGS = ("nearest", "gptq")
DAMPING = 0.01
"""Of the mean of the diagonal of X̂·X̂ᵀ, that is added to it."""
BLOCK = 128
"""Columns whose errors are taken off the others at once."""
MOST_NUMBERS = 1 << 25
"""In the patches that are made at once."""
MOST_ROWS = 1 << 17
"""Of a piece of inputs that squares are summed of, at the most; of more, evenly spread ones."""


def biases(model: FloatModel, places: Places) -> dict[str, str]:
    """Layer → the constant that is its bias, of layers that have one."""
    return {
        n.name: n.input[2]
        for n in model.proto.graph.node
        if n.name in places.layers and len(n.input) > 2 and n.input[2] in model.constants
    }


def settle(
    stages: Stages,
    layers: Mapping[str, Layer],
    weights: Mapping[str, QuantizedWeights],
    constants: Mapping[str, str],
    rounding: str,
    tell: Progress,
) -> dict[str, QuantizedWeights]:
    """Rounds the weights of each layer in turn, on the grid that `weights` has them on; "nearest" takes them as they are.
    Biases in `constants` (see `biases`) are corrected. The stages' setting then holds all of it."""
    model, found = stages.simulated.model, {}
    nodes = {n.name: n for n in model.proto.graph.node}
    for done, (name, inputs) in enumerate(stages):
        tell("rounding", done, len(layers))
        layer, given = layers[name], weights[name]
        weight, node = model.constants[layer.weight], nodes[name]
        window = window_of(node, weight, inputs[0][0].shape[2:]) if node.op_type == "Conv" else None
        seen = _Seen(squares=rounding == "gptq")
        for x, quantized in inputs:
            for some in _pieces(x, weight):
                seen.add(patches(x[some], window), patches(quantized[some], window))
        rows, values = _rows(weight, layer.axis, window), _rows(given.values, layer.axis, window)
        if rounding == "gptq":
            scale = _rows(np.broadcast_to(given.grid.scale, weight.shape), layer.axis, window)
            values = gptq(seen.best(rows), seen.squares, scale, given.grid)
        changed = {layer.weight: _back(values, weight.shape, layer.axis)}
        if name in constants:
            off = (rows @ seen.mean[:, :, None] - values @ seen.quantized_mean[:, :, None]).reshape(-1)
            changed[constants[name]] = (model.constants[constants[name]] + off).astype(np.float32)
        stages.setting = stages.setting.but(constants=changed)
        found[name] = QuantizedWeights(changed[layer.weight], given.grid)
    tell("rounding", len(layers), len(layers))
    return found


def _pieces(x: np.ndarray, weight: np.ndarray) -> list[slice]:
    """Samples of a batch in pieces whose patches are not too large."""
    each = x[0].size * int(np.prod(weight.shape[2:], dtype=int))
    most = max(1, MOST_NUMBERS // max(1, each))
    return [slice(at, at + most) for at in range(0, len(x), most)]


class _Seen:
    """Sums over all rows of patches: squares X̂·X̂ᵀ, products X·X̂ᵀ [groups, K, K], and means [groups, K]."""

    def __init__(self, squares: bool):
        self.rows, self.wants_squares = 0, squares
        self.squares = self.products = self.sum = self.quantized_sum = np.zeros(1)

    def add(self, x: np.ndarray, quantized: np.ndarray) -> None:
        rows = x.shape[1]
        step = -(-rows // MOST_ROWS)
        self.sum = self.sum + x.sum(1, dtype=np.float64)
        self.quantized_sum = self.quantized_sum + quantized.sum(1, dtype=np.float64)
        self.rows += rows
        if not self.wants_squares:
            return
        x, quantized = x[:, ::step], quantized[:, ::step]
        turned = quantized.transpose(0, 2, 1)
        self.squares = self.squares + (turned @ quantized).astype(np.float64)
        self.products = self.products + (x.transpose(0, 2, 1) @ quantized).astype(np.float64)

    @property
    def mean(self) -> np.ndarray:
        return self.sum / self.rows

    @property
    def quantized_mean(self) -> np.ndarray:
        return self.quantized_sum / self.rows

    def best(self, weights: np.ndarray) -> np.ndarray:
        """float64 [groups, O, K]: what makes ‖W·X − W*·X̂‖² least, damped towards W."""
        damped = _damped(self.squares)
        extra = damped - self.squares
        wanted = weights @ (self.products + extra)
        return np.linalg.solve(damped, wanted.transpose(0, 2, 1)).transpose(0, 2, 1)


def _damped(squares: np.ndarray) -> np.ndarray:
    diagonal = np.einsum("gkk->gk", squares)
    more = np.maximum(DAMPING * diagonal.mean(1, keepdims=True), 1e-12) + (diagonal <= 0) * 1e-6
    found = squares.copy()
    np.einsum("gkk->gk", found)[:] += more
    return found


def gptq(weights: np.ndarray, squares: np.ndarray, scale: np.ndarray, grid: Grid) -> np.ndarray:
    """float64 [groups, O, K], on the grid: `weights` rounded by the sums of squares [groups, K, K] of what they are
    multiplied with. `scale`: as the weights. The columns of the greatest squares come first."""
    order = np.argsort(-np.einsum("gkk->gk", squares), axis=1, kind="stable")
    left = np.take_along_axis(weights, order[:, None], 2)
    scales = np.take_along_axis(scale.astype(np.float64), order[:, None], 2)
    sorted_squares = np.take_along_axis(np.take_along_axis(_damped(squares), order[:, :, None], 1), order[:, None], 2)
    inverse = np.linalg.inv(sorted_squares)
    upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)
    size, found = weights.shape[2], np.empty_like(left)
    for start in range(0, size, BLOCK):
        end = min(start + BLOCK, size)
        errors = np.zeros_like(left[:, :, start:end])
        for i in range(start, end):
            w, s = left[:, :, i], scales[:, :, i]
            found[:, :, i] = _levels(w / s, grid) * s
            errors[:, :, i - start] = (w - found[:, :, i]) / upper[:, None, i, i]
            left[:, :, i:end] -= errors[:, :, i - start, None] * upper[:, None, i, i:end]
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    result = np.empty_like(found)
    np.put_along_axis(result, np.broadcast_to(order[:, None], found.shape), found, 2)
    return result


def _levels(u: np.ndarray, grid: Grid) -> np.ndarray:
    if grid.bipolar:
        return np.where(u >= 0, 1.0, -1.0)
    return np.clip(np.rint(u), grid.low, grid.high)


def _rows(weight: np.ndarray, axis: int, window: Window | None) -> np.ndarray:
    """float64 [groups, output channels of one, K]."""
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    groups = window.groups if window else 1
    return rows.reshape(groups, len(rows) // groups, -1)


def _back(values: np.ndarray, shape: tuple[int, ...], axis: int) -> np.ndarray:
    moved = [shape[axis], *(n for a, n in enumerate(shape) if a != axis)]
    return np.ascontiguousarray(np.moveaxis(values.reshape(moved), 0, axis)).astype(np.float32)
