"""Builds a layer's float32 epilogue from real-valued operators.

Two orders of arithmetic, because two things matter:

* Behind a contraction (or a sum over a window), scales, biases, BatchNorms and the next quantizer's spacing are folded
  in float64 and rounded once: an accumulator goes through ONE fma to the units of the quantizer. Its exact ties are of
  no account: the source model's own float sum would decide them at random.
* What is already on a grid, or was stored in float32, meets ties all the time (requantizing, adds of codes, an input
  quantizer). There every operator is one rounded operation, in the order of the source: q·scale, then a·x + b, then
  x / spacing, then + zero point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.graph import Quantizer
from mpcompile.ir.layer import (
    Apply,
    Clamp,
    Divide,
    Fma,
    Instr,
    Largest,
    Load,
    LookUp,
    Plus,
    Round,
    Slope,
    Smallest,
    Term,
    Times,
    Value,
)
from mpcompile.ir.rounding import rounded

DIRECTED = ("ceil", "floor", "up", "down")
"""Roundings that fall off a whole number at the least error: on a grid they get the folded order, where q·s/(s·2^k) is
q/2^k."""

FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Real:
    """The real number clamp(a·v + b, lo, hi) of instruction `at`'s value v; nothing but v is computed yet.

    a, b: float64 [O] or [1]. `exact`: no contraction is in it, the second order of arithmetic above.
    """

    at: int
    a: np.ndarray
    b: np.ndarray
    exact: bool
    lo: float = -np.inf
    hi: float = np.inf


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A quantized value: the id of its level (a Round), or of its q as float32."""

    quantizer: Quantizer
    level: int | None = None
    q: int | None = None


Lazy = Real | OnGrid
ONE, ZERO = np.ones(1), np.zeros(1)


def _single(x) -> bool:
    return np.size(x) == 1


class EpilogueBuilder:
    """Terms and instructions of one layer. `where` is what messages name: whoever builds keeps it up to date."""

    def __init__(self, where: str = "?"):
        self.where = where
        self.terms: list[Term] = []
        self.instrs: list[Instr] = []
        self._done: dict[tuple[str, int], tuple[int, Lazy]] = {}  # what an id() stands for is kept beside it
        self._reals: dict[int, tuple[Real, OnGrid]] = {}

    def push(self, instr: Instr) -> int:
        self.instrs.append(instr)
        return len(self.instrs) - 1

    def load(self, term: Term) -> int:
        self.terms.append(term)
        return self.push(Load(len(self.terms) - 1))

    def constant(self, c) -> np.ndarray:
        """float32 [O] or [1], rounded once; [1] where all channels agree. Raises ModelError unless all are finite."""
        with np.errstate(over="ignore"):
            c32 = np.asarray(c, np.float64).reshape(-1).astype(np.float32)
        if not np.isfinite(c32).all():
            worst = np.asarray(c).reshape(-1)[~np.isfinite(c32)][0]
            raise ModelError(f"node {self.where}: a scale or bias leaves float32 ({worst})")
        return c32[:1] if (c32 == c32[0]).all() else c32

    # -- from lazy to computed -------------------------------------------------------------------
    def real(self, x: Lazy) -> Real:
        """The lazy value as a real number."""
        if isinstance(x, Real):
            return x
        if id(x) not in self._reals:
            q = x.q
            if q is None:
                assert x.level is not None, "what is on a grid has a level or its q"
                q = self.push(Value(x.level, x.quantizer.grid))
            self._reals[id(x)] = Real(q, np.array([x.quantizer.scale]), ZERO, True), x
        return self._reals[id(x)][0]

    def float_id(self, x: Lazy) -> int:
        """The id of a float32 instruction that holds x."""
        r = self.real(x)
        return self._once("real", r, lambda: self._compute(r))

    def _compute(self, x: Real) -> int:
        return self._clamp(self._scale(x.at, x.a, x.b), x.lo, x.hi)

    def _scale(self, at: int, a, b) -> int:
        a32, b32 = self.constant(a), self.constant(b)
        return at if (a32 == 1).all() and not b32.any() else self.push(Fma(at, a32, b32))

    def _clamp(self, at: int, lo: float, hi: float) -> int:
        if lo == -np.inf and hi == np.inf:
            return at
        return self.push(Clamp(at, float(np.float32(lo)), float(np.float32(hi))))

    def level_id(self, x: OnGrid) -> int:
        """The id of a Round that holds x's level."""
        return x.level if x.level is not None else self._once("level", x, lambda: self._level(x))

    def _level(self, x: OnGrid) -> int:
        grid = x.quantizer.grid
        assert x.q is not None, "what is on a grid has a level or its q"
        if grid.step == 1:
            return self.push(Round(x.q, "half_even", grid.lo, grid.hi))
        at = self.push(Fma(x.q, self.constant(1 / grid.step), self.constant(-grid.lo / grid.step)))
        return self.push(Round(at, "half_even", 0, grid.levels - 1))

    def _once(self, form: str, x: Lazy, make) -> int:
        if (form, id(x)) not in self._done:
            self._done[form, id(x)] = make(), x
        return self._done[form, id(x)][0]

    def _settled(self, x: Lazy) -> Real:
        """x computed, so that the next operator is an operation of its own."""
        return Real(self.float_id(x), ONE, ZERO, self.real(x).exact)

    # -- operators -------------------------------------------------------------------------------
    def contraction(self, terms: Sequence[tuple[Term, float]], weight_scale, bias) -> Real:
        """weight_scale·Σ scale·term + bias. Several terms are summed in units of the first: one fma to real units is
        left."""
        (first, unit), *rest = terms
        at = self.load(first)
        for term, scale in rest:
            at = self.push(Fma(self.load(term), self.constant(scale / unit), at))
        a, b = (np.asarray(c, np.float64).reshape(-1) for c in (weight_scale, 0 if bias is None else bias))
        return Real(at, a * unit, b, False)

    def affine(self, x: Lazy, a, b) -> Real:
        """a·x + b."""
        a, b = (np.asarray(v, np.float64).reshape(-1) for v in (a, b))
        r = self.real(x)
        clamped = self._clamped(r)
        if r.exact or (clamped and not (_single(a) and _single(b) and a[0] != 0)):
            settled = self._settled(x) if clamped or not self._is_plain(r) else r
            return replace(settled, a=a, b=b)
        lo, hi = (
            sorted((float(a[0]) * r.lo + float(b[0]), float(a[0]) * r.hi + float(b[0])))
            if clamped
            else (-np.inf, np.inf)
        )
        return replace(r, a=a * r.a, b=a * r.b + b, lo=lo, hi=hi)

    def divide(self, at: int, by: float) -> int:
        """Instruction `at` divided, in one operation."""
        return self.push(Divide(at, self.constant(by)))

    def _clamped(self, x: Lazy) -> bool:
        return isinstance(x, Real) and (x.lo > -np.inf or x.hi < np.inf)

    def _is_plain(self, r: Real) -> bool:
        return bool((r.a == 1).all() and not r.b.any() and not self._clamped(r))

    def clip(self, x: Lazy, lo: float, hi: float) -> Real:
        """min(max(x, lo), hi)."""
        r = self.real(x)
        return replace(r, lo=float(np.clip(r.lo, lo, hi)), hi=float(np.clip(r.hi, lo, hi)))

    def prelu(self, x: Lazy, slope) -> Real:
        """x where x ≥ 0, else slope·x."""
        return Real(self.push(Slope(self.float_id(x), self.constant(slope))), ONE, ZERO, self.real(x).exact)

    def add(self, x: Lazy, y: Lazy) -> Real:
        """x + y: the second product's fma takes the first as its addend; where nothing is a product, one addition."""
        x, y = (self._settled(v) if self._clamped(v) else self.real(v) for v in (x, y))
        if x.exact and y.exact:
            at = self.push(Plus(self._addend(self.float_id(x)), self._addend(self.float_id(y))))
            return Real(at, ONE, ZERO, True)
        if self._is_plain(x) or (x.exact and not self._is_plain(y)):
            x, y = y, x  # x: a product behind a contraction, if there is one
        if self._is_plain(x):
            at = self.push(Plus(self._addend(x.at), self._addend(y.at)))
        elif self._is_plain(y) and x.b.any():
            at = self.push(Plus(self.float_id(x), self._addend(y.at)))
        else:
            b = self._scale(y.at, y.a, y.b + x.b)
            at = self.push(Fma(x.at, self.constant(x.a), b))
        return Real(at, ONE, ZERO, False)

    def mul(self, x: Lazy, y: Lazy) -> Real:
        """x · y."""
        at = self.push(Times(self.float_id(x), self.float_id(y)))
        return Real(at, ONE, ZERO, self.real(x).exact and self.real(y).exact)

    def extreme(self, x: Lazy, y: Lazy, larger: bool) -> Lazy:
        """max(x, y) or min(x, y); of two values on one grid a value on it."""
        made = Largest if larger else Smallest
        if isinstance(x, OnGrid) and isinstance(y, OnGrid) and x.quantizer == y.quantizer:
            return OnGrid(x.quantizer, q=self.push(made(self.real(x).at, self.real(y).at)))
        at = self.push(made(self.float_id(x), self.float_id(y)))
        return Real(at, ONE, ZERO, self.real(x).exact and self.real(y).exact)

    def smooth(self, x: Lazy, function: str, parameters: tuple[float, ...]) -> Real:
        """A function of ir/smooth.py at x."""
        return Real(self.push(Apply(self.float_id(x), function, parameters)), ONE, ZERO, self.real(x).exact)

    def table(self, x: OnGrid, values: np.ndarray, quantizer: Quantizer | None) -> Lazy:
        """values[level of x]; on `quantizer`'s grid where there is one."""
        level = self.level_id(x)
        if quantizer is None:
            return Real(self.push(LookUp(level, np.asarray(values, np.float32))), ONE, ZERO, True)
        q = np.rint(np.asarray(values, np.float64) / quantizer.scale).astype(np.float32)
        return OnGrid(quantizer, q=self.push(LookUp(level, q)))

    def _addend(self, at: int) -> int:
        """`at`, safe in a Plus: a bare product would be contracted with the addition, so a clamp that changes nothing
        stands between them."""
        instr = self.instrs[at]
        product = isinstance(instr, Fma) and not isinstance(instr.b, (int, np.integer)) and not np.any(instr.b)
        if product or isinstance(instr, (Apply, Times)):
            return self.push(Clamp(at, -FLOAT_MAX, FLOAT_MAX))
        return at

    def quantize(self, x: Lazy, quantizer: Quantizer) -> OnGrid:
        """x on `quantizer`'s grid. A clamp before it (ReLU) goes into the Round's bounds where that is the same."""
        r = self.real(x)
        free = replace(r, lo=-np.inf, hi=np.inf) if self._clamped(r) else r
        spacing, zero = quantizer.spacing, quantizer.zero if quantizer.zero_first else 0.0
        if quantizer.rounding == "sign":
            at, lo, hi, zero = self.float_id(free), 0, 1, 0.0
            spacing = 1.0
        elif r.exact and (self._is_plain(free) or quantizer.rounding not in DIRECTED):
            at = self.float_id(free)
            at = at if spacing == 1 else self.push(Divide(at, self.constant(spacing)))
            at = self._scale(at, 1.0, zero)
        else:
            at = self._scale(r.at, r.a / spacing, r.b / spacing + zero)
        if quantizer.rounding != "sign":
            lo = quantizer.umin if quantizer.zero_first else quantizer.umin - self._whole(quantizer.zero)
            hi = lo + quantizer.grid.levels - 1
        low, high = r.lo / spacing + zero, r.hi / spacing + zero
        keep_low = np.isfinite(low) and rounded(np.asarray(low, np.float32), quantizer.rounding) > lo
        if np.isfinite(high) and quantizer.rounding != "sign":
            hi, high = int(max(lo, min(hi, rounded(np.asarray(high, np.float32), quantizer.rounding)))), np.inf
        keep_high = high < 0
        if keep_low or keep_high:
            at = self._clamp(at, low if keep_low else -np.inf, high if keep_high else np.inf)
        return OnGrid(quantizer, level=self.push(Round(at, quantizer.rounding, int(lo), int(hi))))

    def _whole(self, zero: float) -> int:
        if zero != int(zero):
            raise ModelError(
                f"node {self.where}: a zero point of {zero} is added after rounding; whole ones would be accepted"
            )
        return int(zero)
