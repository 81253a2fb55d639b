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

DAMPINGS = 0.01, 0.1, 1.0
"""Of the mean of the diagonal of H, that are added to it: the more, the fewer inputs it is known from."""
BLOCK = 128
"""Columns whose errors are taken off the others at once."""
SWEEPS = 4
"""Of the descent over all columns, at the most."""
SHARES = 1.0, 0.7, 0.8, 0.9, 1.1
"""Of the scales given, that are tried, of fewer than FINE bits."""
FINE = 8


def fitted(problem: Problem, owner: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """Values, shaped as the weights, and their grid, whose scales may have changed. `owner`: int [groups, O], which of the
    grid's scales a row has, counted along its array."""
    weights = problem.weights
    least = np.full(grid.scale.size, np.inf)
    scales, found = grid.scale.reshape(-1).copy(), weights
    for share in SHARES if grid.bits < FINE else (1.0,):
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
    """Of weights, float64 [groups, O, K], and H, [groups, K, K], which is damped by a share. Scales, and values on a grid,
    are shaped as the weights."""

    def __init__(self, weights: np.ndarray, squares: np.ndarray, damping: float):
        self.weights, self.squares = weights, damped(squares, damping)
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


def damped(squares: np.ndarray, share: float) -> np.ndarray:
    """[groups, K, K] that can be inverted: `share` of the mean of its diagonal is added to that."""
    diagonal = np.einsum("gkk->gk", squares)
    more = np.maximum(share * diagonal.mean(1, keepdims=True), 1e-12) + (diagonal <= 0) * 1e-6
    found = squares.copy()
    np.einsum("gkk->gk", found)[:] += more
    return found


def _levels(u: np.ndarray, grid: Grid) -> np.ndarray:
    if grid.bipolar:
        return np.where(u >= 0, 1.0, -1.0)
    return np.clip(np.rint(u), grid.low, grid.high)
