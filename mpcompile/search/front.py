"""Points of accuracy against measured latency, and which of them no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from mpcompile.search.layers import BitAssignment


@dataclass(frozen=True)
class Point:
    """One trained network. `kind` is searched, uniform, float or int8; seconds are of one image; None for what is not
    known (yet), or what a float network has not.

    accuracy: by the training framework on the test images (int8: ONNX Runtime's, there is no other); `deployed`: what
    the file gives on the device. measured: by itself, as soon as it was trained; `raced`: in turn with all the other points
    of the run, at its end. Predicted are the table's own seconds (`raw`) and the calibrated ones of the moment it was
    searched.
    """

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
    assignment: BitAssignment | None = None
    layers: dict[str, float] = field(default_factory=dict)
    """Fused layer → the table's seconds."""
    figures: dict[str, float] = field(default_factory=dict)
    raced: float | None = None
    deployed: float | None = None
    weight_bytes: float | None = None
    """All weights at their bits, packed without gaps."""

    @property
    def seconds(self) -> float | None:
        """What points are compared by: the race's, else its own."""
        return self.measured if self.raced is None else self.raced

    def to_json(self) -> dict:
        return {**asdict(self), "assignment": self.assignment.to_json() if self.assignment else None}

    @staticmethod
    def from_json(data: dict) -> Point:
        return Point(
            **{**data, "assignment": BitAssignment.from_json(data["assignment"]) if data["assignment"] else None}
        )


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other equals or beats in both accuracy and latency, fastest first."""
    kept: list[Point] = []
    for point in sorted((p for p in points if p.seconds is not None), key=lambda p: (p.seconds, -p.accuracy)):
        if not kept or point.accuracy > kept[-1].accuracy:
            kept.append(point)
    return kept
