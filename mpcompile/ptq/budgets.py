"""What a quantized network may cost: seconds, bytes, BitOps, or a mean bitwidth."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitPair

UNITS = {
    "latency": {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "s": 1.0},
    "size": {"B": 1, "KB": 1e3, "MB": 1e6, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
    "bitops": {"BitOps": 1.0, "MBitOps": 1e6, "GBitOps": 1e9, "TBitOps": 1e12},
}
EXAMPLE = {"latency": "12 ms", "size": "800 KiB", "bitops": "2 GBitOps"}


@dataclass(frozen=True)
class Budget:
    """At most `amount` seconds (kind "latency"), bytes ("size") or BitOps ("bitops"); where `bits` is given, what a network
    costs that has them in all layers but those that are kept; of kind "bitops" for each MAC ("mean")."""

    kind: str
    text: str
    amount: float = 0.0
    bits: BitPair | None = None


def parse_budget(kind: str, text: str) -> Budget:
    """ "12 ms", "800 KiB", "2 GBitOps", or "w4a4" for what such a network costs. Raises UsageError at anything else."""
    try:
        return Budget(kind, text, bits=BitPair.parse(text))
    except UsageError:
        pass  # it is a number with a unit, then
    found = re.fullmatch(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ]+)\s*", text)
    try:
        if found is None:
            raise ValueError
        amount = float(found[1]) * UNITS[kind][found[2]]
    except (ValueError, KeyError):
        raise UsageError(
            f'{kind} {text!r} is not like "{EXAMPLE[kind]}", in {", ".join(UNITS[kind])}, or like "w4a4", for what such a '
            "network costs"
        ) from None
    if not 0 < amount < float("inf"):
        raise UsageError(f"{kind} {text!r} must be above 0")
    return Budget(kind, text, amount)


def parse_mean(text: str | float) -> Budget:
    """A mean bitwidth from 1 to 8: at most its square of BitOps for each MAC. Raises UsageError at anything else."""
    try:
        bits = float(text)
        if not 1 <= bits <= 8:
            raise ValueError
    except ValueError:
        raise UsageError(f"a mean of {text} bits; a number from 1 to 8 would be accepted") from None
    return Budget("mean", f"{bits:g} bits", bits)
