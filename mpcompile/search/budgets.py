"""What a point of the front may cost: "w2a2", "96 % of w2a2", "60 %", "2.5 ms", "1.2 GBitOps"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.bits import BitPair

UNITS = {
    "%": ("share", 0.01),
    "ms": ("latency", 1e-3),
    "us": ("latency", 1e-6),
    "s": ("latency", 1.0),
    "GBitOps": ("bitops", 1e9),
    "MBitOps": ("bitops", 1e6),
}


@dataclass(frozen=True)
class Budget:
    """A share of the way from the least to the greatest cost, or seconds (kind "latency"), or BitOps, or (kind
    "uniform") what a network of `bits` everywhere costs; or (kind "weight") the weight of the cost in the loss."""

    name: str
    kind: str
    amount: float
    bits: BitPair | None = None


def parse_budget(text: str, objective: str) -> Budget:
    """A budget of the objective "latency" or "bitops". Raises ModelError at anything else than the module names."""
    try:
        bits = BitPair.parse(text)
        return Budget(f"target-{bits}", "uniform", 1.0, bits)
    except UsageError:
        pass  # it is a number with a unit, then
    if found := re.fullmatch(r"\s*([0-9.]+)\s*% of (w[1-8]a[1-8])\s*", text.lower()):
        share, bits = parse_budget(f"{found[1]} %", objective).amount, BitPair.parse(found[2])
        return Budget(f"target-{bits}-{100 * share:g}pc", "uniform", share, bits)
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(%|[A-Za-z]+)\s*", text)
    try:
        if found is None:
            raise ValueError
        number = float(found[1])
        kind, factor = UNITS[found[2]]
    except (ValueError, KeyError):
        raise ModelError(
            f'target {text!r} is not like "w2a2", "96 % of w2a2", "60 %", "2.5 ms" or "1.2 GBitOps"'
        ) from None
    if kind not in ("share", objective):
        raise ModelError(f"target {text!r} is no number of an objective of {objective}")
    if not 0 < number < float("inf"):
        raise ModelError(f"target {text!r} must be above 0")
    return Budget(f"target-{number:g}{'pc' if found[2] == '%' else found[2]}", kind, number * factor)
