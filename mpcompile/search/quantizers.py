"""Quantizers, one class each: how a real tensor goes to the codes of a grid, at any of several bitwidths, and back.

A quantizer owns what it learns (a clip) and nothing else: the weights that it quantizes belong to the layer and are
shared by all bitwidths. To add one, derive from `Quantizer` and enter it in WEIGHTS or ACTIVATIONS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpcompile import grid as grids
from mpcompile.grid import Grid
from mpcompile.search.mixture import ClippedMixture, UnitMixture, levels

SMALLEST = 1e-4
"""A clip below this is taken as this."""


class Quantizer(nn.Module, ABC):
    """Real value = scale(b)·q, q on grid(b)."""

    @abstractmethod
    def fake(self, x: Tensor, bits: int) -> Tensor:
        """x quantized to `bits` bits and back, x's shape and dtype; gradients pass straight through the rounding."""

    @abstractmethod
    def mix(self, x: Tensor, probs: Tensor, bits: Sequence[int]) -> Tensor:
        """Σ_i probs[i]·fake(x, bits[i]) in one pass."""

    @abstractmethod
    def real(self, x: Tensor) -> Tensor:
        """x as the network without quantization has it."""

    @abstractmethod
    def codes(self, x: Tensor, bits: int) -> Tensor:
        """The levels 0 .. grid(bits).levels − 1 that `fake` stands for, int64."""

    @abstractmethod
    def grid(self, bits: int) -> Grid:
        """The integers q."""

    @abstractmethod
    def scale(self, bits: int) -> float:
        """Real value of q = 1."""


class DoReFa(Quantizer):
    """Weights: x̃ = tanh(w)/(2·max|tanh w|) + 1/2,  w_b = 2·Q_b(x̃) − 1, on the odd grid, scale 1/(2^b − 1) (arXiv
    1606.06160)."""

    def unit(self, w: Tensor) -> Tensor:
        """x̃ in 0..1. The gradient goes through tanh, and through the largest |tanh w|."""
        t = torch.tanh(w)
        return t / (2 * t.abs().amax().clamp_min(1e-12)) + 0.5

    def fake(self, x: Tensor, bits: int) -> Tensor:
        return self.mix(x, x.new_ones(1), (bits,))

    def mix(self, x: Tensor, probs: Tensor, bits: Sequence[int]) -> Tensor:
        return 2 * UnitMixture.apply(self.unit(x), probs, tuple(bits)) - probs.sum()

    def real(self, x: Tensor) -> Tensor:
        return 2 * self.unit(x) - 1

    def codes(self, x: Tensor, bits: int) -> Tensor:
        return torch.round(self.unit(x) * levels(bits)).long()

    def grid(self, bits: int) -> Grid:
        return grids.odd(bits)

    def scale(self, bits: int) -> float:
        return 1 / levels(bits)


class Pact(Quantizer):
    """Activations: α·Q_b(clip(x, 0, α)/α), unsigned, scale α/(2^b − 1), α learned (arXiv 1805.06085). It is the ReLU,
    too."""

    def __init__(self, alpha: float = 3.0, learned: bool = True):
        super().__init__()
        self.learned = learned
        if learned:
            self.alpha = nn.Parameter(torch.tensor(alpha))
        else:
            self.register_buffer("alpha", torch.tensor(alpha))

    @property
    def clip(self) -> Tensor:
        return self.alpha.clamp_min(SMALLEST)

    def fake(self, x: Tensor, bits: int) -> Tensor:
        return self.mix(x, x.new_ones(1), (bits,))

    def mix(self, x: Tensor, probs: Tensor, bits: Sequence[int]) -> Tensor:
        return ClippedMixture.apply(x, self.clip, probs, tuple(bits))

    def real(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def codes(self, x: Tensor, bits: int) -> Tensor:
        top = self.clip.item()
        return torch.round(x.clamp(0.0, top) * (levels(bits) / top)).long()

    def grid(self, bits: int) -> Grid:
        return grids.unsigned(bits)

    def scale(self, bits: int) -> float:
        return self.clip.item() / levels(bits)

    def start_from(self, x: Tensor) -> None:
        """α from values as they are met: 2.5 times the root of the mean square of what is above 0."""
        if self.learned:
            with torch.no_grad():
                above = x[x > 0]
                self.alpha.fill_(2.5 * float(above.square().mean().sqrt()) if above.numel() else 1.0)


WEIGHTS: dict[str, type[Quantizer]] = {"dorefa": DoReFa}
ACTIVATIONS: dict[str, type[Quantizer]] = {"pact": Pact}
