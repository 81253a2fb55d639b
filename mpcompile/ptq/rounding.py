"""Weights rounded one after another, each so that those that follow make up for its error on the calibration inputs: GPTQ
(OPTQ), layer by layer, behind all that is quantized before.

    min ‖W·X − Ŵ·X̂‖²        X: the layer's inputs in the float network, X̂: in the quantized one

In units of the grid, column i is rounded and its error, over the inverse of X̂·X̂ᵀ, is taken off the columns after it.
Biases are corrected on the way: the mean of each output channel is the float network's (of a transposed convolution that
cuts off what its taps reach at the borders, nearly).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.observe import Progress
from mpcompile.ptq.patches import patches, window_of
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
        spatial, spread = inputs[0][0].shape[2:], node.op_type == "ConvTranspose"
        window = window_of(node, weight, spatial) if weight.ndim > 2 else None
        seen = _Seen(squares=rounding == "gptq")
        for x, quantized in inputs:
            for some in _pieces(x, weight):
                seen.add(patches(x[some], window), patches(quantized[some], window))
        turned = _Rows(weight.shape, layer.axis, window.groups if window else 1, spread)
        rows, values = turned.of(weight), turned.of(given.values)
        if rounding == "gptq":
            scale = turned.of(np.broadcast_to(given.grid.scale, weight.shape))
            values = gptq(seen.best(rows), seen.squares, scale, given.grid)
        changed = {layer.weight: turned.back(values)}
        if name in constants:
            off = (rows @ seen.mean[:, :, None] - values @ seen.quantized_mean[:, :, None]).reshape(-1)
            if spread:  # all taps of a channel, spread over the places of the output
                places = math.prod(n or 1 for n in model.shapes[node.output[0]][2:])
                off = off.reshape(-1, math.prod(weight.shape[2:])).sum(1) * math.prod(spatial) / places
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


@dataclass(frozen=True)
class _Rows:
    """Weights as float64 [groups, outputs of one, K], as they are multiplied with `patches`. `spread`: of a transposed
    convolution, whose every channel and tap is an output, and whose channels are those of a group in `axis`."""

    shape: tuple[int, ...]
    axis: int
    groups: int
    spread: bool

    def of(self, weight: np.ndarray) -> np.ndarray:
        if self.spread:
            return weight.astype(np.float64).reshape(self.groups, self.shape[0] // self.groups, -1).transpose(0, 2, 1)
        rows = np.moveaxis(weight, self.axis, 0).astype(np.float64)
        return rows.reshape(self.groups, len(rows) // self.groups, -1)

    def back(self, rows: np.ndarray) -> np.ndarray:
        if self.spread:
            return np.ascontiguousarray(rows.transpose(0, 2, 1)).reshape(self.shape).astype(np.float32)
        moved = [self.shape[self.axis], *(n for a, n in enumerate(self.shape) if a != self.axis)]
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, self.axis)).astype(np.float32)
