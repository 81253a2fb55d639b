"""A monotone epilogue as integer thresholds: what outputs of few bits compare their accumulators with.

Where a Round depends on one integer term through monotone steps alone, its level counts the thresholds that the
accumulator reaches:

    level = Σ_t [ (acc ^ mask[o]) ≥ T[t, o] ]        mask = −1 where a larger acc gives a smaller level, else 0

(acc ^ −1 = ~acc = −acc − 1, so a falling channel costs one XOR and no second comparison.) The thresholds are found by
bisection on the exact epilogue, so they agree with it at every accumulator of the given range, ties included, however
many roundings it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpcompile.ir.layer import Clamp, Divide, Fma, Instr, Load, Round, Slope, Value
from mpcompile.reference.epilogue import evaluate

INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """`T` int32 [levels − 1, O], ascending in t; `flip` bool [O]; `term` is the layer's term that they compare."""

    T: np.ndarray
    flip: np.ndarray
    term: int

    @property
    def mask(self) -> np.ndarray:
        """int32 [O]: −1 where flipped, else 0; acc ^ mask is what the thresholds are compared with."""
        return -self.flip.astype(np.int32)

    def level(self, acc: np.ndarray) -> np.ndarray:
        """int64 levels of integers (O, H, W)."""
        reached = acc.astype(np.int64) ^ self.mask.astype(np.int64).reshape(-1, 1, 1)
        levels = np.zeros(reached.shape, np.int64)
        for t in self.T:
            levels += reached >= t.reshape(-1, 1, 1)
        return levels


def thresholds(
    epilogue: list[Instr], value_id: int, channels: int, acc_lo: np.ndarray, acc_hi: np.ndarray
) -> Thresholds | None:
    """Thresholds of the Round `value_id` for accumulators acc_lo[o] ≤ acc ≤ acc_hi[o] (int [O], or one for all).

    None where the Round is no monotone chain over one Load (two terms, a PRelu with a negative slope, a value that is
    not finite), or where ~acc_lo or acc_hi is int32's largest, which no int32 threshold exceeds. The loaded term must
    be an integer one: that is the caller's to know.
    """
    chain = _chain(epilogue, value_id)
    if chain is None:
        return None
    rising = _directions(chain, channels)
    if rising is None:
        return None
    flip = rising < 0
    mask = -flip.astype(np.int64)
    lo, hi = (np.broadcast_to(np.asarray(v, np.int64).reshape(-1), channels) for v in (acc_lo, acc_hi))
    lo, hi = np.where(flip, ~hi, lo), np.where(flip, ~lo, hi)
    if (lo > hi).any() or lo.min() < INT32.min or hi.max() >= INT32.max or _overflows(chain, lo ^ mask, hi ^ mask):
        return None

    load, last = chain[0], chain[-1]
    assert isinstance(load, Load) and isinstance(last, Round)
    wanted = np.arange(1, last.hi - last.lo + 1)[:, None]  # the level that each threshold starts
    below = np.repeat(lo[None] - 1, len(wanted), 0)  # invariant: level(below) < wanted
    reached = np.repeat(hi[None] + 1, len(wanted), 0)  #            level(reached) ≥ wanted
    while (reached - below > 1).any():
        middle = (below + reached) // 2
        # Where below and reached are neighbours, middle is below and may lie outside lo..hi: leave those alone.
        enough = _level(chain, np.clip(middle, lo, hi) ^ mask) >= wanted
        open_ = reached - below > 1
        reached = np.where(open_ & enough, middle, reached)
        below = np.where(open_ & ~enough, middle, below)
    return Thresholds(reached.astype(np.int32), flip, load.term)


def _chain(epilogue: list[Instr], value_id: int) -> list[Instr] | None:
    """The instructions from a Load to the Round `value_id`, renumbered so that each reads the one before it."""
    if not isinstance(epilogue[value_id], Round):
        return None
    chain: list[Instr] = []
    at = value_id
    while True:
        instr = epilogue[at]
        chain.append(instr)
        match instr:
            case Load():
                break
            case Value(level):
                at = level
            case Fma(x, _, b) if not isinstance(b, (int, np.integer)):
                at = x
            case Divide(x) | Clamp(x) | Slope(x) | Round(x):
                at = x
            case _:
                return None
    chain.reverse()
    return [_reading(instr, i - 1) for i, instr in enumerate(chain)]


def _reading(instr: Instr, x: int) -> Instr:
    """`instr` with value x as its operand; a Load stays as it is."""
    match instr:
        case Fma(_, a, b):
            return Fma(x, a, b)
        case Divide(_, s):
            return Divide(x, s)
        case Clamp(_, lo, hi):
            return Clamp(x, lo, hi)
        case Slope(_, slope):
            return Slope(x, slope)
        case Round(_, rounding, lo, hi):
            return Round(x, rounding, lo, hi)
        case Value(_, grid):
            return Value(x, grid)
    return instr


def _directions(chain: list[Instr], channels: int) -> np.ndarray | None:
    """+1 or −1 [O]: whether the level rises or falls with the accumulator. None where it need not do either."""
    rising = np.ones(channels)
    for instr in chain:
        match instr:
            case Fma(_, a, b):
                sign, allowed = np.sign(a), np.isfinite(a).all() and np.isfinite(b).all()
            case Divide(_, s):
                sign, allowed = np.sign(s), np.isfinite(s).all() and np.all(s)
            case Slope(_, slope):
                sign, allowed = np.sign(slope), np.isfinite(slope).all() and np.min(slope) >= 0
            case _:
                continue
        if not allowed:
            return None
        # A factor of 0 makes the channel constant (a slope of 0: half of it), which rises as much as it falls.
        rising = rising * np.where(sign == 0, 1, sign)
    return rising


def _overflows(chain: list[Instr], lo: np.ndarray, hi: np.ndarray) -> bool:
    """Whether a value on the way is infinite or NaN at an end of a channel's range (if not, then nowhere between)."""
    values = evaluate([Load(0), *chain[1:]], [np.stack([lo, hi], 1)[:, :, None]])
    return not all(np.isfinite(v).all() for v in values)


def _level(chain: list[Instr], acc: np.ndarray) -> np.ndarray:
    """The Round's levels at accumulators [levels − 1, O], by the exact epilogue."""
    _load, *rest = chain
    return evaluate([Load(0), *rest], [acc.T[:, :, None]])[-1][:, :, 0].T
