"""What `profile` finds of a network that is taken as it is."""

from __future__ import annotations

from dataclasses import dataclass

from mpcompile.latency.measure import Timing


@dataclass(frozen=True)
class NetworkProfile:
    """A compiled network, timed layer by layer and, as `network`, from end to end. `rows` are the manifest's layers, in
    order."""

    model: str
    measured_on: dict[str, str]
    rows: list[dict]
    layers: dict[str, Timing]
    network: Timing
    note: str

    def to_json(self) -> dict:
        return {
            "model": self.model,
            "measured_on": self.measured_on,
            "unit": "seconds",
            "whole": self.network.to_json(),
            "layers": [
                {**row, "time": self.layers[row["name"]].to_json()} for row in self.rows if row["name"] in self.layers
            ],
            "note": self.note,
        }
