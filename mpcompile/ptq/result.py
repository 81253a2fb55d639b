"""What quantizing gives: the written file, its layers, and what its budgets come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mpcompile.allocate.program import said
from mpcompile.ir.bits import BitPair


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of the result. `weights` numbers, `macs` a sample; `alone`: the loss of its weight bits by themselves, where
    that was measured."""

    name: str
    op: str
    bits: BitPair
    weights: int
    macs: int
    kept: bool
    alone: float | None = None

    def to_json(self) -> dict:
        return vars(self) | {"bits": str(self.bits)}


@dataclass(frozen=True)
class Cost:
    """Of a budget: what was asked for (`text`, in `unit` the `limit`), and what the result costs; `modelled`: expected by a
    cost model, not measured."""

    kind: str
    text: str
    limit: float
    cost: float
    unit: str
    modelled: bool = False

    def told(self) -> str:
        """One line."""
        model = ", by the board's cost model, not measured" if self.modelled else ""
        return f"{self.kind}: {said(self.cost, self.unit)}, where {self.text} are allowed{model}"

    def to_json(self) -> dict:
        return vars(self)


@dataclass(frozen=True)
class Quantized:
    """The written file and what is in it. `float_operators`: name → why it runs in float. `loss`: of the outputs, against
    the float network's on the calibration inputs (mse: squared error over variance); `same_class`: the share of them for
    which the largest value of each row of the first output is where it was, None where that has fewer than two values."""

    path: Path
    layers: list[QuantizedLayer]
    float_operators: dict[str, str]
    costs: list[Cost]
    weight_bytes: float
    bitops: float
    loss: float
    same_class: float | None
    samples: int

    def to_json(self) -> dict:
        return vars(self) | {
            "path": str(self.path),
            "layers": [layer.to_json() for layer in self.layers],
            "costs": [cost.to_json() for cost in self.costs],
        }
