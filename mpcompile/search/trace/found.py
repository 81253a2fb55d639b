"""What a search of a module ends with: networks, each with its bits, its module and its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import nn

from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.search import checkpoint
from mpcompile.search.checks import BUNDLE, MODEL, POINTS
from mpcompile.search.front import Point
from mpcompile.search.run import WEIGHTS, Result
from mpcompile.search.trace.network import Traced
from mpcompile.search.trace.task import ModuleTask


@dataclass(frozen=True)
class FoundNetwork:
    """One network of a search. `point`: its figures; `folder`: its files'."""

    point: Point
    folder: Path
    task: ModuleTask = field(repr=False)

    @property
    def name(self) -> str:
        return self.point.name

    @property
    def accuracy(self) -> float:
        """By the metric, on `val`."""
        return self.point.accuracy

    @property
    def seconds(self) -> float | None:
        """Of one sample, raced against the others on the device; None where the bundle was not timed."""
        return self.point.seconds

    @property
    def bits(self) -> Mapping[str, BitPair]:
        """Layer → bits of its weights and of its input; empty in float."""
        found, reads = self.point.assignment, self.task.network().reads()
        if found is None:
            return {}
        return {layer: BitPair(bits, found.tensors[reads[layer]]) for layer, bits in found.weights.items()}

    @cached_property
    def model(self) -> nn.Module:
        """The module as it was given, at these bits and with the weights that were trained, in evaluation mode: its layers
        hold quantized weights, and hooks quantize what they read. Raises UsageError where its file is damaged."""
        state = checkpoint.load(self.folder / WEIGHTS)
        if state is None:
            raise UsageError(f"{self.folder / WEIGHTS} is missing or damaged: run the same search again")
        network = self.task.network(state["network"])
        assert isinstance(network, Traced)
        network.load_state_dict(state["network"])
        network.assign(self.point.assignment)
        return network.plain()

    @property
    def bundle(self) -> Path | None:
        """The compiled file; None in float."""
        return self.folder / BUNDLE if self.point.assignment is not None else None

    @property
    def onnx(self) -> Path:
        """The QONNX file that it was compiled from."""
        return self.folder / MODEL


@dataclass(frozen=True)
class SearchResult:
    """`networks`: all, by name, in the order in which they were made; `floats`: what of the module stays in float → why."""

    folder: Path
    networks: Mapping[str, FoundNetwork]
    front: list[FoundNetwork]
    """Those that no other beats in both accuracy and time, fastest first."""
    floats: Mapping[str, str]

    @property
    def best(self) -> FoundNetwork:
        """The most accurate of the searched networks, each of which keeps its budget."""
        searched = [n for n in self.networks.values() if n.point.kind == "searched"]
        return max(searched, key=lambda n: n.accuracy)


def result_of(result: Result, task: ModuleTask) -> SearchResult:
    networks = {p.name: FoundNetwork(p, result.folder / POINTS / p.name, task) for p in result.points}
    front = [networks[p.name] for p in result.front]
    return SearchResult(result.folder, networks, front, task.planned.floats)
