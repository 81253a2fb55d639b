"""Which kernel family a contraction gets: a cost model in cycles of one core. No TVM here.

`target` is a mpcompile.targets.Target, of which the model reads what a core can do of each family a cycle.
"""

from __future__ import annotations

import numpy as np

from mpcompile.ir.grid import Grid
from mpcompile.ir.layer import ContractPart
from mpcompile.ir.planes import word_bytes, words
from mpcompile.kernels.accumulators import int16_steps
from mpcompile.kernels.lookup_form import GROUP, digit_bits, entries
from mpcompile.kernels.weights import dot_form, dot_weights, needs_sums
from mpcompile.kernels.winograd_form import WORK, has_form, tiles

__all__ = ["FAMILIES", "candidates", "dot_weights", "is_depthwise", "needs_sums", "reads_sums"]

FAMILIES = ("popcount", "dot", "lookup", "depthwise")

# Work beside the inner loop, for each output value, counted in the inner loop's own units so that it shrinks with wider
# vectors. Fitted to the fused 3×3 layers of ResNet-18 on Zen 5 (W1A1, W1A2, W2A2): 0.3 + 0.1 a plane pair cycles at 683
# bit-MAC/cycle.
_POPCOUNT_OUTPUT, _POPCOUNT_PAIR = 200.0, 70.0
_DOT_OUTPUT = 40.0
_LOOKUP_OUTPUT = 100.0
_TABLES_AGAIN = 1.3
# int8 products of a depthwise kernel share nothing between channels: no dot instruction helps, one multiply-add a lane.
_DEPTHWISE_SHARE = 0.25


IMAGE_CHANNELS = 4
"""Tensors of so few channels are never stored in planes."""


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def is_depthwise(part: ContractPart) -> bool:
    """One input channel for each output channel."""
    return part.groups > 1 and part.groups == part.q.shape[0] and part.q.shape[1] == 1


def reads_sums(part: ContractPart, family: str) -> bool:
    """Whether `family` reads the window sums of `part`'s input. A sum is over all channels: groups by codes do
    without."""
    return needs_sums(part.grid, family) and (part.groups == 1 or family == "popcount")


def candidates(part: ContractPart, in_grid: Grid, target, output: tuple[int, int]) -> list[tuple[str, float]]:
    """(family, cycles) of every family that can compute `part`, cheapest first. `output` = (HO, WO).

    popcount  activations whose patterns count up, of more channels than an image has (a word of so few would be
              wasted); where groups > 1 the weights are spread over a dense kernel, so their
              grid must hold 0
    dot       activations of at most 256 levels, weights m·int8 + o, or, where groups > 1, as they are in int16; groups
              that do not fill vectors are spread too
    lookup    the same activations, of more channels than an image has, weights on any grid, where the target has a
              number for it and the output channels fill its vectors
    depthwise the same activations, weights as they are in int16; where it fits it is the only one
    """
    outputs, per_group, kh, kw = part.q.shape
    pixels = output[0] * output[1]
    channels = per_group * part.groups
    as_codes = in_grid.levels <= 256 and (part.groups > 1 or dot_form(part.grid) is not None)
    costs: dict[str, float] = {}
    if is_depthwise(part) and as_codes:
        work = _up(outputs, 16) * kh * kw
        costs["depthwise"] = pixels * (work / _DEPTHWISE_SHARE + _DOT_OUTPUT * outputs) / target.dot_macs_per_cycle
    else:
        if _counts_up(in_grid) and channels > IMAGE_CHANNELS and (part.groups == 1 or part.grid.has_zero):
            pairs = part.grid.planes * in_grid.planes
            work = _up(outputs, 8) * kh * kw * 8 * word_bytes(channels) * words(channels) * pairs
            beside = _up(outputs, 8) * (_POPCOUNT_OUTPUT + _POPCOUNT_PAIR * pairs)
            costs["popcount"] = pixels * (work + beside) / target.popcount_bitmacs_per_cycle
        if as_codes:
            depth = per_group if _groups_fill_vectors(part) else channels
            steps16 = _steps16(part, in_grid)
            work = _up(outputs, 16) * kh * kw * _up(depth, 4)
            if (
                target.multiplies_16_bits
                and not steps16
                and has_form(part.q.shape, output, part.strides, part.dilations, part.groups)
            ):
                work *= WORK * 4 * tiles(output[0]) * tiles(output[1]) / pixels
            costs["dot"] = pixels * (work + _up(outputs, 16) * _DOT_OUTPUT) / target.dot_rate(steps16)
        if as_codes and part.groups == 1 and channels > IMAGE_CHANNELS and _fill_lookups(outputs, target):
            found = lookup_cycles(part, in_grid, target)
            if found is not None:
                costs["lookup"] = pixels * found
    for family in costs:
        if reads_sums(part, family):
            costs[family] += pixels * kh * kw / 4  # a few additions a pixel, shared by its outputs
    return sorted(costs.items(), key=lambda item: item[1])


def _steps16(part: ContractPart, in_grid: Grid) -> int:
    """How many sums of two products of `dot` fit 16 bits (Target.dot_rate), by the grids."""
    lo, hi = part.grid.lo, part.grid.hi
    if part.groups == 1:
        multiplier, offset = dot_form(part.grid)
        lo, hi = (lo - offset) // multiplier, (hi - offset) // multiplier
    return int16_steps(in_grid.levels - 1, (lo, hi)) if lo >= -128 and hi <= 127 else 0


def _fill_lookups(outputs: int, target) -> bool:
    """Whether the target has look-ups, and the channels that are computed together are whole vectors, in whatever form
    they are stored."""
    lanes = target.lookup_lanes
    if not target.lookup_macs_per_cycle or outputs <= IMAGE_CHANNELS:
        return False
    return lanes == 16 or _up(outputs, 16) == lanes or _up(outputs, 16) % 64 == 0


def lookup_cycles(part: ContractPart, in_grid: Grid, target) -> float | None:
    """Cycles an output pixel; None where 16-bit sums do not hold the products, where they are never widened.

    A step is a look-up and an addition. A table takes 2 steps to make; lines share all but a few of them.
    """
    outputs, channels, kh, kw = part.q.shape
    level_bits, lanes, widen = (in_grid.levels - 1).bit_length(), target.lookup_lanes, target.lookup_widen
    bits = digit_bits(level_bits, 1 if target.lookup_sums_any else part.q[0].size, widen)
    if bits is None:
        return None
    digits = -(-level_bits // bits)
    steps = _up(channels, 16) // GROUP * digits
    looked_up = steps * kh * kw * _up(outputs, lanes) / lanes * part.grid.planes * (1 + widen / entries(bits))
    made = 2 * steps * part.strides[0] * part.strides[1] * (_TABLES_AGAIN if kh > 1 else 1)
    return ((looked_up + made) * GROUP * lanes + _up(outputs, 16) * _LOOKUP_OUTPUT) / target.lookup_macs_per_cycle


def _groups_fill_vectors(part: ContractPart) -> bool:
    """Whether no vector of outputs, and no step of input channels, straddles two groups."""
    return part.q.shape[0] // part.groups % 16 == 0 and part.q.shape[1] % 4 == 0


def _counts_up(grid: Grid) -> bool:
    """Whether the pattern of level k is k + p0 modulo 2^planes, which is what producers can pack."""
    first = grid.patterns[0]
    return bool((grid.patterns == (np.arange(grid.levels) + first) % (1 << grid.planes)).all())
