"""The float32 fused multiply-add, exactly, in numpy.

fma(x, a, b) is x·a + b rounded once. numpy has no such function, and float32(float64(x)·a + b) rounds twice. Here:

1. the product of two float32 is exact in float64 (24 + 24 bits ≤ 53; exponents −298..256 lie well inside);
2. Knuth's TwoSum gives s + e = product + b exactly, s being float64's nearest;
3. where e ≠ 0, s is moved to the neighbour with an odd last bit ("round to odd": Boldo and Melquiond, 2008);
4. an odd-rounded value with at least 2 bits more than the destination rounds to it as the exact value would, so the
   conversion to float32 is right, in ties, subnormals and overflow alike.
"""

from __future__ import annotations

import numpy as np


def fma(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x·a + b of float32 arrays, broadcast, rounded once to nearest even. Infinities and NaN as IEEE 754 says."""
    x, a, b = (np.asarray(v, np.float32).astype(np.float64) for v in (x, a, b))
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        product = x * a
        s = np.asarray(product + b)
        back = s - product
        e = (product - (s - back)) + (b - back)
        inexact = np.isfinite(s) & (e != 0)
        even = (s.view(np.int64) & 1) == 0
        s = np.where(inexact & even, np.nextafter(s, np.copysign(np.inf, e)), s)
        return s.astype(np.float32)
