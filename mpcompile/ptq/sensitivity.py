"""How much the network's output suffers from each layer's weights, and each tensor, at each bitwidth: measured, one at a
time, all else in float."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mpcompile.allocate.wiring import Sensitivity
from mpcompile.ptq.calibration import Calibration
from mpcompile.ptq.grids import Grid
from mpcompile.ptq.observe import Progress
from mpcompile.ptq.simulate import Setting, Simulation

LOSSES = ("mse", "kl")


def output_loss(expected: Sequence[np.ndarray], found: Sequence[np.ndarray], kind: str) -> float:
    """mse: squared error over the variance between samples of what is expected, summed over the outputs. kl: the mean
    divergence of the class probabilities (softmax over the last axis) from the expected ones."""
    total = 0.0
    for a, b in zip(expected, found):
        a, b = a.astype(np.float64), b.astype(np.float64)
        if kind == "kl":
            p, q = _log_softmax(a), _log_softmax(b)
            total += float((np.exp(p) * (p - q)).sum(-1).mean())
        else:
            total += float(((a - b) ** 2).mean() / max(((a - a.mean(0)) ** 2).mean() or a.var(), 1e-20))
    return total


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def measure(
    simulation: Simulation,
    samples: Calibration,
    weights: Mapping[str, tuple[str, Mapping[int, np.ndarray]]],
    grids: Mapping[str, Mapping[int, Grid]],
    loss: str,
    tell: Progress,
) -> Sensitivity:
    """weights: layer → its constant, and its values at each bitwidth; grids: tensor → its grid at each."""
    nothing = Setting({}, {})
    expected = simulation.run(samples, nothing)
    total = sum(len(by_bits) for _, by_bits in weights.values()) + sum(map(len, grids.values()))
    done = 0
    of_weights: dict[str, dict[int, float]] = {}
    of_tensors: dict[str, dict[int, float]] = {}
    tell("sensitivity", 0, total)
    for layer, (constant, by_bits) in weights.items():
        of_weights[layer] = {}
        for bits, values in by_bits.items():
            found = simulation.run(samples, nothing.but(constants={constant: values}))
            of_weights[layer][bits] = output_loss(expected, found, loss)
            done += 1
            tell("sensitivity", done, total)
    for tensor, by_grid in grids.items():
        of_tensors[tensor] = {}
        for bits, grid in by_grid.items():
            found = simulation.run(samples, nothing.but(grids={tensor: grid}))
            of_tensors[tensor][bits] = output_loss(expected, found, loss)
            done += 1
            tell("sensitivity", done, total)
    return Sensitivity(of_weights, of_tensors)
