"""Smooth functions of an accumulator: their exact definitions, each a sequence of single float32 operations, fma
polynomials among them. The reference and the kernels run the same sequence, so they give the same bits everywhere.

A definition is a function over an `Arithmetic`, which says what an operation is: numpy's, or an expression of TIR. No
product is ever added to anything but by `fma`, so that no compiler has anything to contract.

Polynomials: exp by Cody and Waite's reduction to |r| ≤ ln 2 / 2, tanh by Eigen's rational function; the others are least
squares over Chebyshev's nodes. Largest errors are below 3e-7 of max(1, |value|); tests/unit/test_smooth.py measures them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

NEAREST = 12582912.0
"""1.5·2^23: what is added to it is rounded to a whole number."""
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440054690581e-4
"""Their sum is ln 2; products of the first with whole numbers up to 2^15 are exact."""
LEAST_EXP, MOST_EXP = -87.0, 88.0
"""Where exp is a normal float32; beyond, it is that of these ends."""
OF_EXP = (
    0.5,
    0.1666666716337204,
    0.04166646674275398,
    0.0083332983776927,
    0.0013933650916442275,
    0.00019899285689461976,
)
"""(exp(r) − 1 − r) / r² for |r| ≤ ln 2 / 2."""
OF_TANH = (4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
           -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16)  # fmt: skip
UNDER_TANH = (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
"""tanh(x) = x·P(x²)/Q(x²) for |x| ≤ MOST_TANH, where it is 1 to float32."""
MOST_TANH = 7.90531110763549805
OF_ERF = (1.128379225730896, -0.37612637877464294, 0.11283782869577408, -0.026865437626838684, 0.005221053492277861,
          -0.0008484396385028958, 0.00011268253729213029, -9.673590284364764e-06)  # fmt: skip
"""erf(x) = x·P(x²) for |x| ≤ 1."""
OF_LOG_ERFC = (0.00030321296071633697, -1.1301666498184204, -0.6319370865821838, -0.10997824370861053,
               0.02636471763253212, -0.004740222357213497, 0.0005927695310674608, -4.559062290354632e-05,
               1.6140616025950294e-06)  # fmt: skip
"""log(1 − erf(x)) for 1 ≤ x ≤ 4."""
OF_LOG1P = (1.0, -0.4999998211860657, 0.33332568407058716, -0.24987392127513885, 0.19891537725925446,
            -0.1610863208770752, 0.12425103038549423, -0.08253533393144608, 0.04155762121081352,
            -0.013444830663502216, 0.0020376904867589474)  # fmt: skip
"""log(1 + t) / t for 0 ≤ t ≤ 1."""


class Arithmetic(Protocol):
    """Operations on float32, each rounded once to nearest even."""

    def const(self, value: float) -> Any: ...

    def fma(self, x: Any, a: Any, b: Any) -> Any:
        """x·a + b."""
        ...

    def times(self, x: Any, y: Any) -> Any: ...

    def minus(self, x: Any, y: Any) -> Any: ...

    def divide(self, x: Any, y: Any) -> Any: ...

    def least(self, x: Any, y: Any) -> Any: ...

    def greatest(self, x: Any, y: Any) -> Any: ...

    def below(self, x: Any, limit: float, then: Any, otherwise: Any) -> Any:
        """`then` where x < limit, else `otherwise`."""
        ...

    def power_of_two(self, whole: Any) -> Any:
        """2^n, where `whole` is NEAREST + n, −126 ≤ n ≤ 127: n is in its lowest bits."""
        ...

    def once(self, x: Any) -> Any:
        """x, to be computed once although it is read several times."""
        ...


def _polynomial(do: Arithmetic, x: Any, factors: Sequence[float]) -> Any:
    """Σ factors[i]·x^i, by Horner's rule in fma."""
    value = do.const(factors[-1])
    for factor in factors[-2::-1]:
        value = do.fma(value, x, do.const(factor))
    return value


def _magnitude(do: Arithmetic, x: Any) -> Any:
    return do.once(do.greatest(x, do.times(x, do.const(-1.0))))


def _clamped(do: Arithmetic, x: Any, low: float, high: float) -> Any:
    return do.once(do.least(do.greatest(x, do.const(low)), do.const(high)))


def exp(do: Arithmetic, x: Any) -> Any:
    x = _clamped(do, x, LEAST_EXP, MOST_EXP)
    whole = do.once(do.fma(x, do.const(LOG2_E), do.const(NEAREST)))
    n = do.once(do.minus(whole, do.const(NEAREST)))
    r = do.once(do.fma(n, do.const(-LN2_LOW), do.fma(n, do.const(-LN2_HIGH), x)))
    of_r = do.fma(_polynomial(do, r, OF_EXP), do.times(r, r), r)
    power = do.once(do.power_of_two(whole))
    return do.once(do.fma(of_r, power, power))


def expm1(do: Arithmetic, x: Any) -> Any:
    """exp(x) − 1, also near 0."""
    near = _clamped(do, x, -0.34, 0.34)
    of_near = do.fma(_polynomial(do, near, OF_EXP), do.times(near, near), near)
    far = do.minus(exp(do, x), do.const(1.0))
    return do.below(_magnitude(do, x), 0.34, of_near, far)


def sigmoid(do: Arithmetic, x: Any) -> Any:
    small = exp(do, do.times(x, do.const(-1.0)))
    return do.divide(do.const(1.0), do.fma(small, do.const(1.0), do.const(1.0)))


def tanh(do: Arithmetic, x: Any) -> Any:
    x = _clamped(do, x, -MOST_TANH, MOST_TANH)
    square = do.once(do.times(x, x))
    above = do.times(x, _polynomial(do, square, OF_TANH))
    return do.divide(above, _polynomial(do, square, UNDER_TANH))


def erf(do: Arithmetic, x: Any) -> Any:
    size = _magnitude(do, x)
    near = do.once(do.least(size, do.const(1.0)))
    of_near = do.times(near, _polynomial(do, do.once(do.times(near, near)), OF_ERF))
    far = exp(do, _polynomial(do, _clamped(do, size, 1.0, 4.0), OF_LOG_ERFC))
    value = do.once(do.below(size, 1.0, of_near, do.fma(far, do.const(-1.0), do.const(1.0))))
    return do.below(x, 0.0, do.times(value, do.const(-1.0)), value)


def softplus(do: Arithmetic, x: Any) -> Any:
    t = exp(do, do.times(_magnitude(do, x), do.const(-1.0)))
    return do.fma(t, _polynomial(do, t, OF_LOG1P), do.greatest(x, do.const(0.0)))


def silu(do: Arithmetic, x: Any, alpha: float = 1.0) -> Any:
    """x·sigmoid(alpha·x)."""
    return do.times(x, sigmoid(do, x if alpha == 1 else do.once(do.times(x, do.const(alpha)))))


def mish(do: Arithmetic, x: Any) -> Any:
    """x·tanh(softplus(x)) = x·n/(n + 2), n = e·(e + 2), e = exp(x)."""
    e = exp(do, do.least(x, do.const(20.0)))
    n = do.once(do.times(e, do.fma(e, do.const(1.0), do.const(2.0))))
    return do.times(x, do.divide(n, do.fma(n, do.const(1.0), do.const(2.0))))


def gelu(do: Arithmetic, x: Any) -> Any:
    """x/2·(1 + erf(x/√2))."""
    of_x = erf(do, do.once(do.times(x, do.const(math.sqrt(0.5)))))
    return do.times(x, do.fma(of_x, do.const(0.5), do.const(0.5)))


def gelu_tanh(do: Arithmetic, x: Any) -> Any:
    """x/2·(1 + tanh(u)) = x·sigmoid(2·u), u = √(2/π)·(x + 0.044715·x³)."""
    inner = do.fma(do.times(x, x), do.const(0.044715), do.const(1.0))
    twice = do.times(do.times(x, do.const(2 * math.sqrt(2 / math.pi))), inner)
    return do.times(x, sigmoid(do, do.once(twice)))


def elu(do: Arithmetic, x: Any, alpha: float, gain: float = 1.0, width: float = 1.0) -> Any:
    """gain·x where x ≥ 0, else gain·alpha·(exp(x/width) − 1)."""
    under = do.least(x, do.const(0.0))
    under = do.once(under if width == 1 else do.divide(under, do.const(width)))
    negative = do.times(expm1(do, under), do.const(gain * alpha))
    return do.below(x, 0.0, negative, x if gain == 1 else do.times(x, do.const(gain)))


def softsign(do: Arithmetic, x: Any) -> Any:
    """x/(1 + |x|)."""
    return do.divide(x, do.fma(_magnitude(do, x), do.const(1.0), do.const(1.0)))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f for f in (exp, sigmoid, tanh, erf, softplus, silu, mish, gelu, gelu_tanh, elu, softsign)
}
"""By name: (arithmetic, x, *parameters) → the value."""


def apply(name: str, do: Arithmetic, x: Any, parameters: Sequence[float] = ()) -> Any:
    """The function at x. Raises KeyError where there is none of that name."""
    return FUNCTIONS[name](do, do.once(x), *(float(np.float32(p)) for p in parameters))
