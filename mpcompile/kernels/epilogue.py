"""The float32 epilogue as tensor expressions: each instruction of `layer.py` one correctly rounded operation.

No multiplication here is ever followed by an addition that a compiler could contract: products with a sum are
explicit `fma`, and every constant is a run-time parameter, so none can be folded away.
"""

from __future__ import annotations

from mpcompile.kernels.primitives import nearbyint
from mpcompile.kernels.tvm_names import tirx

NEAREST = 12582912.0
"""1.5·2^23. float32 of this size are whole numbers, so adding it rounds a small number to the nearest, ties to even."""

NEAREST_BITS = 0x4B400000
"""NEAREST as int32: the bits of NEAREST + n are NEAREST_BITS + n; for n from 0 to NEAREST_MOST, NEAREST_BITS ^ n."""

NEAREST_MOST = (1 << 22) - 1


def f32(value: float):
    return tirx.const(value, "float32")


def once(value, of):
    """of(value), which reads it several times: it is computed once, and what it binds itself is bound once."""
    variable = tirx.Var("once", "float32")
    return tirx.Let(variable, value, of(variable))


def round_to(x, rounding: str, lo: int, hi: int):
    """int32 level: clamp(round(x), lo, hi) − lo. The clamp comes first: its bounds are whole, so it is the same."""
    if rounding == "sign":
        # x >= 0 by its bits, of which -0 has the greatest: where vectors of floats take subnormals for 0 (ARMv7), these
        # do not
        return (tirx.reinterpret("uint32", x) <= tirx.const(1 << 31, "uint32")).astype("int32")
    t = tirx.max(tirx.min(x, f32(float(hi))), f32(float(lo)))
    even = lo - lo % 2  # moving by an even number leaves ties as they are
    if rounding == "half_even" and max(hi - even, -even) <= NEAREST_MOST:
        level = tirx.reinterpret("int32", t + f32(NEAREST - even)) ^ NEAREST_BITS
        return level - 1 if lo % 2 else level
    level = _WHOLE[rounding](t).astype("int32")
    return level - lo if lo else level


def _up(t):
    return tirx.Select(t >= f32(0.0), tirx.ceil(t), tirx.floor(t))


# t − floor(t) is exact for |t| < 2^23
def _half_up(t):
    down, up, half = tirx.floor(t), tirx.ceil(t), f32(0.5)
    return tirx.Select(t >= f32(0.0), tirx.Select(t - down >= half, up, down), tirx.Select(up - t >= half, down, up))


def _half_down(t):
    down, up, half = tirx.floor(t), tirx.ceil(t), f32(0.5)
    return tirx.Select(t >= f32(0.0), tirx.Select(t - down > half, up, down), tirx.Select(up - t > half, down, up))


_WHOLE = {
    "half_even": nearbyint,
    "floor": lambda t: tirx.floor(t),
    "ceil": lambda t: tirx.ceil(t),
    "down": lambda t: tirx.trunc(t),
    "up": lambda t: once(t, _up),
    "half_up": lambda t: once(t, _half_up),
    "half_down": lambda t: once(t, _half_down),
}
