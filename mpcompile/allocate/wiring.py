"""What an integer program has to know of a network: which layer reads which tensors, how large each is, what a choice of
bits loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class WiredLayer(Protocol):
    """`tensors`: what it reads, side by side; `weights`: how many numbers; `macs`: multiply-accumulates of a sample."""

    @property
    def tensors(self) -> tuple[str, ...]: ...
    @property
    def weights(self) -> int: ...
    @property
    def macs(self) -> int: ...


class Wired(Protocol):
    """`layers`: by name."""

    @property
    def layers(self) -> Mapping[str, WiredLayer]: ...

    def readers(self, tensor: str) -> Sequence[str]:
        """The layers that read a tensor."""
        ...

    def tied(self) -> Sequence[Sequence[str]]:
        """Tensors in groups that must have as many bits."""
        ...


@dataclass(frozen=True)
class Sensitivity:
    """Loss by layer and bits of its weights, by tensor and its bits."""

    weights: dict[str, dict[int, float]]
    tensors: dict[str, dict[int, float]]


@dataclass(frozen=True)
class Place:
    """A layer and what it reads."""

    tensors: tuple[str, ...]
    weights: int
    macs: int


@dataclass(frozen=True)
class Reading:
    """Layers that read one tensor each; no two tensors are tied."""

    layers: dict[str, Place]

    def readers(self, tensor: str) -> list[str]:
        return [name for name, layer in self.layers.items() if tensor in layer.tensors]

    def tied(self) -> list[list[str]]:
        return [[t] for t in dict.fromkeys(t for layer in self.layers.values() for t in layer.tensors)]
