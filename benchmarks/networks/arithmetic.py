"""Convolution and max pooling of float32 maps [C, H, W] in numpy, for calibration."""

from __future__ import annotations

import numpy as np


def convolve(x: np.ndarray, weight: np.ndarray, stride: int, pad: int, groups: int = 1) -> np.ndarray:
    """x [C, H, W], weight [O, C/groups, K, K] → [O, HO, WO], float32. groups is 1 or C (depthwise, O = C)."""
    o, c, k, _ = weight.shape
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    ho, wo = ((n + 2 * pad - k) // stride + 1 for n in x.shape[1:])
    if groups not in (1, len(x)) or c * groups != len(x) or (groups > 1 and o != groups):
        raise ValueError(f"{groups} groups of a weight {weight.shape} over {len(x)} channels")
    total = np.zeros((o, ho, wo), np.float32)
    for i in range(k):
        for j in range(k):
            window = padded[:, i : i + stride * ho : stride, j : j + stride * wo : stride][:, :ho, :wo]
            if groups > 1:
                total += weight[:, 0, i, j, None, None] * window
            else:
                total += (np.ascontiguousarray(weight[:, :, i, j]) @ window.reshape(c, -1)).reshape(total.shape)
    return total


def pool(x: np.ndarray, k: int, stride: int, pads: tuple[int, int, int, int]) -> np.ndarray:
    """The largest value of each k×k window; pads top, left, bottom, right."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=-np.inf)
    ho, wo = ((n - k) // stride + 1 for n in padded.shape[1:])
    return np.max(
        [
            padded[:, i : i + stride * ho : stride, j : j + stride * wo : stride][:, :ho, :wo]
            for i in range(k)
            for j in range(k)
        ],
        axis=0,
    )
