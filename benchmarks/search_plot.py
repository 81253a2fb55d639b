"""The plot of benchmarks.search_methods: accuracy against latency, each method's mean and deviation over seeds beside the
uniform networks, as an SVG. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDE, HIGH = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 24, 48
COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f", "#bcbd22"
"""Okabe and Ito's, which differ for the colour-blind, too; then some more."""
APART = 7
"""Pixels between the points of two methods at one budget."""


@dataclass(frozen=True)
class Dot:
    """Microseconds, and per cent with their deviation over seeds."""

    x: float
    y: float
    off: float


def svg(title: str, uniform: Mapping[str, Dot], methods: Mapping[str, Sequence[Dot]]) -> str:
    """`uniform`: bits → its dot, joined by a line; `methods`: name → a dot for each budget."""
    dots = [*uniform.values(), *(d for found in methods.values() for d in found)]
    low, high = min(d.y - d.off for d in dots), max(d.y + d.off for d in dots)
    first, last = min(d.x for d in dots), max(d.x for d in dots)
    margin = 0.12 * (last - first or 1.0)
    first, last = first - margin, last + margin

    def across(x: float) -> float:
        return LEFT + (x - first) / (last - first) * (WIDE - LEFT - RIGHT)

    def up(y: float) -> float:
        return HIGH - BOTTOM - (y - low) / (high - low or 1.0) * (HIGH - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDE}" height="{HIGH}" fill="white"/>',
    ]
    for y in _ticks(low, high):
        parts.append(f'<path d="M{LEFT} {up(y):.1f}H{WIDE - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{up(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in _ticks(first, last):
        parts.append(f'<path d="M{across(x):.1f} {HIGH - BOTTOM}v5" stroke="#666"/>')
        parts.append(f'<text x="{across(x):.1f}" y="{HIGH - BOTTOM + 19}" text-anchor="middle">{x:g}</text>')
    parts.append(f'<path d="M{LEFT} {TOP}V{HIGH - BOTTOM}H{WIDE - RIGHT}" fill="none" stroke="#666"/>')
    middle = (LEFT + WIDE - RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{HIGH - 10}" text-anchor="middle">µs by the table</text>')
    parts.append(f'<text x="{LEFT}" y="{TOP - 9}">accuracy, %</text>')
    line = " ".join(
        f"{across(d.x):.1f},{up(d.y):.1f}" for d in sorted(uniform.values(), key=lambda d: d.x)
    )  # fmt: skip
    parts.append(f'<polyline points="{line}" fill="none" stroke="black" stroke-dasharray="5 4"/>')
    for name, d in uniform.items():
        parts += _dot(across(d.x), up(d.y), up(d.y - d.off), up(d.y + d.off), "black", f"uniform {name}")
        parts.append(f'<text x="{across(d.x) + 7:.1f}" y="{up(d.y) + 14:.1f}">{escape(name)}</text>')
    for i, (name, found) in enumerate(methods.items()):
        colour, shift = COLOURS[i % len(COLOURS)], APART * (i - (len(methods) - 1) / 2)
        for d in found:
            at = across(d.x) + shift
            parts += _dot(at, up(d.y), up(d.y - d.off), up(d.y + d.off), colour, f"{name}: {d.y:.1f} ± {d.off:.1f}")
        y = TOP + 12 + 20 * i
        parts.append(f'<circle cx="{WIDE - RIGHT + 24}" cy="{y - 4}" r="4" fill="{colour}"/>')
        parts.append(f'<text x="{WIDE - RIGHT + 36}" y="{y}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _dot(x: float, y: float, low: float, high: float, colour: str, said: str) -> list[str]:
    return [
        f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(said)}</title></circle>',
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between these, four to ten of them."""
    power = 10.0 ** len(str(int(high - low)))
    step = next(s for s in (power / d for d in (2, 4, 5, 10, 20, 40, 50, 100, 200)) if (high - low) / s >= 4)
    first = int(low // step) + 1
    return [round(n * step, 6) for n in range(first, int(high // step) + 1)]
