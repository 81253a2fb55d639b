"""Points of accuracy against measured latency, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from mpcompile.search.layers import Assignment


@dataclass(frozen=True)
class Point:
    """One trained network. `kind` is searched, uniform or float; seconds are of one image; predicted ones are the
    table's own (`raw`) and the calibrated ones of the moment it was searched; None for what a float network has not."""

    name: str
    kind: str
    accuracy: float
    measured: float | None
    predicted: float | None = None
    raw: float | None = None
    target: float | None = None
    unit: str = "s"
    bitops: float | None = None
    normalised_bits: float | None = None
    assignment: Assignment | None = None
    layers: dict[str, float] = field(default_factory=dict)
    """Fused layer → the table's seconds."""
    figures: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        return {**asdict(self), "assignment": self.assignment.to_json() if self.assignment else None}

    @staticmethod
    def from_json(data: dict) -> "Point":
        return Point(**{**data, "assignment": Assignment.from_json(data["assignment"]) if data["assignment"] else None})


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other equals or beats in both accuracy and measured latency, fastest first."""
    kept: list[Point] = []
    for point in sorted((p for p in points if p.measured is not None), key=lambda p: (p.measured, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept
