"""Proofs that sums do not overflow, for any input: which width an accumulator needs, and when a narrow one is widened.

A narrow accumulator takes `chunk` steps, the most of which a bound on one step's sum proves that they fit; then it is
added to a wide one. The widest is int32: `check_int32` refuses a contraction whose sums might not fit.
"""

from __future__ import annotations

import numpy as np

from mpcompile.errors import ModelError

INT32 = (1 << 31) - 1


def int16_steps(max_level: int, weights: tuple[int, int], products: int = 2) -> int:
    """How many sums of `products` level·weight fit int16, for levels 0..max_level and weights (least, greatest).

    At least 2^14 where nothing can grow. 0: not even one.
    """
    up, down = products * max_level * max(weights[1], 0), products * max_level * max(-weights[0], 0)
    return min(32767 // up if up else 1 << 14, 32768 // down if down else 1 << 14)


def uint8_steps(most: int) -> int:
    """How many numbers 0..most fit uint8 together."""
    return 255 // most


def uint16_steps(most: int) -> int:
    """How many numbers 0..most fit uint16 together."""
    return 65535 // most


def chunk(kernel_h: int, kernel_w: int, steps: int, most: int) -> tuple[int, int, int]:
    """How much of the reduction (kh, kw, step) is added before it is widened: whole rows, whole taps, or a divisor of a
    tap's steps, of at most `most` steps in all."""
    if kernel_h * kernel_w * steps <= most:
        return kernel_h, kernel_w, steps
    if kernel_w * steps <= most:
        return 1, kernel_w, steps
    return 1, 1, max(d for d in range(1, min(most, steps) + 1) if steps % d == 0)


def dot_reach(w8: np.ndarray, max_level: int, multiplier: int, offset: int) -> int:
    """How far from 0 any partial sum of multiplier·Σ w8·l + offset·Σ l may come, over all levels l = 0..max_level.

    w8: [O, C, KH, KW]. The greatest of all output channels.
    """
    products = np.abs(w8.astype(np.int64)).sum((1, 2, 3)).max()
    return max_level * int(abs(multiplier) * products + abs(offset) * w8[0].size)


def popcount_reach(taps: int, weight_planes: tuple[int, ...], activation_planes: tuple[int, ...], offset: int) -> int:
    """The same of Σ_ij c_i·d_j·popcount + offset·Σ ã, for `taps` = C·KH·KW bits that may all be set in all planes."""
    weights, activations = sum(map(abs, weight_planes)), sum(map(abs, activation_planes))
    return int(taps * activations * (weights + abs(offset)))


def check_int32(name: str, reaches: list[int], taps: int) -> None:
    """Raises ModelError naming layer `name` where the sum of its contractions' parts may not fit int32."""
    reach = sum(reaches)
    if reach > INT32:
        raise ModelError(
            f"layer {name}: sums of {taps} products may reach ±{reach}, which int32 does not hold: fewer "
            f"bits, or at most {taps * INT32 // reach} products, would be accepted"
        )
