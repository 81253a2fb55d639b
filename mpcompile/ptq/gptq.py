"""Weights on a grid that leave the least error of a layer's outputs, by the sums of squares of its inputs.

    min tr (W − Ŵ)·H·(W − Ŵ)ᵀ        H = Σ x·xᵀ over the inputs

GPTQ (OPTQ) rounds one column after another, in units of the grid: column i's error, over the inverse of H, is taken off the
columns after it. This is done at several scales; each row has the one that leaves the least. Coordinate descent (as in
QuantEase) then moves a column at a time to its best codes, given all others, which never makes the error greater.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpcompile.ptq.grids import Grid

DAMPING = 0.01
"""Of the mean of the diagonal of H, that is added to it."""
BLOCK = 128
"""Columns whose errors are taken off the others at once."""
SWEEPS = 4
"""Of the descent over all columns, at the most."""
SHARES = 1.0, 0.65, 0.72, 0.79, 0.86, 0.93, 1.08, 1.16
"""Of the scales given, that are tried."""


def fitted(weights: np.ndarray, squares: np.ndarray, owner: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Values, float64 [groups, O, K] as `weights`, and their grid, whose scales may have changed. `squares`: float64
    [groups, K, K]. `owner`: int [groups, O], which of the grid's scales a row has, counted along its array."""
    problem = Problem(weights, squares)
    least = np.full(grid.scale.size, np.inf)
    scales, found = grid.scale.reshape(-1).copy(), weights
    for share in SHARES:
        tried = grid.scale.reshape(-1) * np.float32(share)  # float32, as the file has it
        values = problem.gptq(_of_rows(tried, owner, weights), grid)
        errors = np.bincount(owner.reshape(-1), problem.error(values).reshape(-1), len(least))
        better = errors < least
        least[better], scales[better] = errors[better], tried[better]
        found = np.where(better[owner][:, :, None], values, found)
    found = problem.descended(found, _of_rows(scales, owner, weights), grid)
    return found, replace(grid, scale=scales.reshape(grid.scale.shape))


def _of_rows(scales: np.ndarray, owner: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.broadcast_to(scales.astype(np.float64)[owner][:, :, None], weights.shape)


class Problem:
    """Of weights, float64 [groups, O, K], and H, [groups, K, K], which is damped. Scales, and values on a grid, are shaped
    as the weights."""

    def __init__(self, weights: np.ndarray, squares: np.ndarray):
        self.weights, self.squares = weights, damped(squares)
        self.diagonal = np.einsum("gkk->gk", self.squares)
        self.order = np.argsort(-self.diagonal, axis=1, kind="stable")  # the columns of the greatest squares come first
        rows = np.take_along_axis(self.squares, self.order[:, :, None], 1)
        inverse = np.linalg.inv(np.take_along_axis(rows, self.order[:, None], 2))
        self.upper = np.linalg.cholesky(inverse).transpose(0, 2, 1)

    def error(self, values: np.ndarray) -> np.ndarray:
        """[groups, O]: what is made least, of each row."""
        off = values - self.weights
        return ((off @ self.squares) * off).sum(2)

    def gptq(self, scale: np.ndarray, grid: Grid) -> np.ndarray:
        """Values: one column after another rounded."""
        left = np.take_along_axis(self.weights, self.order[:, None], 2)
        scales = np.take_along_axis(scale, self.order[:, None], 2)
        size, found = left.shape[2], np.empty_like(left)
        for start in range(0, size, BLOCK):
            end = min(start + BLOCK, size)
            errors = np.zeros_like(left[:, :, start:end])
            for i in range(start, end):
                w, s = left[:, :, i], scales[:, :, i]
                found[:, :, i] = _levels(w / s, grid) * s
                errors[:, :, i - start] = (w - found[:, :, i]) / self.upper[:, None, i, i]
                left[:, :, i:end] -= errors[:, :, i - start, None] * self.upper[:, None, i, i:end]
            left[:, :, end:] -= errors @ self.upper[:, start:end, end:]
        result = np.empty_like(found)
        np.put_along_axis(result, np.broadcast_to(self.order[:, None], found.shape), found, 2)
        return result

    def descended(self, values: np.ndarray, scale: np.ndarray, grid: Grid) -> np.ndarray:
        """Values, with each column moved in turn to where the error is least given all others, until none moves, SWEEPS
        times at the most."""
        found = values.copy()
        slope = (found - self.weights) @ self.squares  # half the error's, by each value
        for _ in range(SWEEPS):
            still = True
            for i in range(found.shape[2]):
                s = scale[:, :, i]
                best = _levels((found[:, :, i] - slope[:, :, i] / self.diagonal[:, None, i]) / s, grid) * s
                group, row = np.nonzero(best != found[:, :, i])
                if len(row):
                    still = False
                    step = best[group, row] - found[group, row, i]
                    found[group, row, i] = best[group, row]
                    slope[group, row] += step[:, None] * self.squares[group, i]
            if still:
                break
        return found


def damped(squares: np.ndarray) -> np.ndarray:
    """[groups, K, K] that can be inverted."""
    diagonal = np.einsum("gkk->gk", squares)
    more = np.maximum(DAMPING * diagonal.mean(1, keepdims=True), 1e-12) + (diagonal <= 0) * 1e-6
    found = squares.copy()
    np.einsum("gkk->gk", found)[:] += more
    return found


def _levels(u: np.ndarray, grid: Grid) -> np.ndarray:
    if grid.bipolar:
        return np.where(u >= 0, 1.0, -1.0)
    return np.clip(np.rint(u), grid.low, grid.high)
