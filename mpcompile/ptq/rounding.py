"""Weights rounded layer by layer, each behind all that is quantized before, so that its outputs on the calibration inputs
are as near to the float network's as its grid lets them be.

    min ‖W·X + b − Ŵ·X̂ − b̂‖²        X: the layer's inputs in the float network, X̂: in the quantized one

The least squares' W* = W·X·X̂ᵀ·(X̂·X̂ᵀ)⁻¹ is what `gptq` rounds. Biases are corrected on the way: the mean of each output
channel is the float network's (of a transposed convolution that cuts off what its taps reach at the borders, nearly), so
that sums are of what X and X̂ are off their means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpcompile.ptq.float_model import FloatModel
from mpcompile.ptq.gptq import DAMPINGS, Problem, damped, fitted
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.observe import Progress
from mpcompile.ptq.patches import patches, window_of
from mpcompile.ptq.places import Layer, Places
from mpcompile.ptq.stages import Stages
from mpcompile.ptq.write import QuantizedWeights

ROUNDINGS = ("nearest", "gptq")
MOST_NUMBERS = 1 << 25
"""In the patches that are made at once."""
MOST_ROWS = 1 << 15
"""Of patches that are made at once; of more, evenly spread ones."""


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
    """Rounds the weights of each layer in turn, on the grid that `weights` has them on, its scales changed where that is
    better; "nearest" takes them as they are. Biases in `constants` (see `biases`) are corrected. The stages' setting then
    holds all of it."""
    model, found = stages.simulated.model, {}
    nodes = {n.name: n for n in model.proto.graph.node}
    for done, (name, inputs) in enumerate(stages):
        tell("rounding", done, len(layers))
        layer, grid = layers[name], weights[name].grid
        weight, node = model.constants[layer.weight], nodes[name]
        spatial, spread = inputs[0][0].shape[2:], node.op_type == "ConvTranspose"
        window = window_of(node, weight, spatial) if weight.ndim > 2 else None
        halves = [Seen(rounding == "gptq") for _ in range(2)]
        turn = 0  # every other sample is of the other half
        for x, quantized in inputs:
            for some in _pieces(x, weight):
                for i in range(min(2, len(x[some]))):
                    given = (patches(a[some][i::2], window, MOST_ROWS // 2) for a in (x, quantized))
                    halves[(turn + i) % 2].add(*given)
                turn += len(x[some])
        seen = halves[0] + halves[1]
        turned = _Rows(weight.shape, layer.axis, window.groups if window else 1, spread)
        rows, values = turned.of(weight), turned.of(weights[name].values)
        if rounding == "gptq":
            numbers = np.arange(grid.scale.size).reshape(grid.scale.shape)
            owner = turned.of(np.broadcast_to(numbers, weight.shape))[:, :, 0].astype(int)
            sums = [s.about_means() if name in constants and not spread else s for s in (seen, *halves) if s.rows]
            scale = turned.of(np.broadcast_to(grid.scale, weight.shape))
            damping = best_damping(sums[1:], rows, scale, grid) if len(sums) > 2 else DAMPINGS[0]
            values, grid = fitted(sums[0].problem(rows, damping), owner, grid)
        changed = {layer.weight: turned.back(values)}
        if name in constants:
            off = (rows @ seen.mean[:, :, None] - values @ seen.quantized_mean[:, :, None]).reshape(-1)
            if spread:  # all taps of a channel, spread over the places of the output
                places = math.prod(n or 1 for n in model.shapes[node.output[0]][2:])
                off = off.reshape(-1, math.prod(weight.shape[2:])).sum(1) * math.prod(spatial) / places
            changed[constants[name]] = (model.constants[constants[name]] + off).astype(np.float32)
        stages.setting = stages.setting.but(constants=changed)
        found[name] = QuantizedWeights(changed[layer.weight], grid)
    tell("rounding", len(layers), len(layers))
    return found


def _pieces(x: np.ndarray, weight: np.ndarray) -> list[slice]:
    """Samples of a batch in pieces whose patches are not too large."""
    each = x[0].size * int(np.prod(weight.shape[2:], dtype=int))
    most = max(1, MOST_NUMBERS // max(1, each))
    return [slice(at, at + most) for at in range(0, len(x), most)]


class Seen:
    """Sums over rows of patches, X in float and X̂ quantized: means [groups, K]; squares X̂·X̂ᵀ and products X·X̂ᵀ
    [groups, K, K]."""

    def __init__(self, squares: bool):
        self.rows, self.wants_squares = 0, squares
        self.squares = self.products = self.sum = self.quantized_sum = np.zeros(1)

    def add(self, x: np.ndarray, quantized: np.ndarray) -> None:
        self.rows += x.shape[1]
        self.sum = self.sum + x.sum(1, dtype=np.float64)
        self.quantized_sum = self.quantized_sum + quantized.sum(1, dtype=np.float64)
        if self.wants_squares:
            self.squares = self.squares + (quantized.transpose(0, 2, 1) @ quantized).astype(np.float64)
            self.products = self.products + (x.transpose(0, 2, 1) @ quantized).astype(np.float64)

    def __add__(self, other: Seen) -> Seen:
        found = Seen(self.wants_squares)
        for name in ("rows", "squares", "products", "sum", "quantized_sum"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        return found

    @property
    def mean(self) -> np.ndarray:
        return self.sum / self.rows

    @property
    def quantized_mean(self) -> np.ndarray:
        return self.quantized_sum / self.rows

    def about_means(self) -> Seen:
        """Of X and X̂ less their means."""
        found, quantized = self + Seen(self.wants_squares), self.quantized_mean[:, None]
        found.squares = self.squares - self.rows * quantized.transpose(0, 2, 1) * quantized
        found.products = self.products - self.rows * self.mean[:, :, None] * quantized
        return found

    def problem(self, weights: np.ndarray, damping: float) -> Problem:
        """What makes ‖W·X − W*·X̂‖² least, damped towards W, and X̂·X̂ᵀ."""
        sound = damped(self.squares, damping)
        wanted = weights @ (self.products + sound - self.squares)
        best = np.linalg.solve(sound, wanted.transpose(0, 2, 1)).transpose(0, 2, 1)
        return Problem(best, self.squares, damping)

    def error(self, weights: np.ndarray, values: np.ndarray) -> float:
        """‖W·X − Ŵ·X̂‖² less what does not depend on Ŵ."""
        return float(((values @ self.squares - 2 * weights @ self.products) * values).sum())


def best_damping(halves: Sequence[Seen], weights: np.ndarray, scale: np.ndarray, grid: Grid) -> float:
    """With which each half of the inputs gives the weights that are best on the other."""
    errors = [
        sum(b.error(weights, a.problem(weights, d).gptq(scale, grid)) for a, b in (halves, halves[::-1]))
        for d in DAMPINGS
    ]
    return DAMPINGS[int(np.argmin(errors))]


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
