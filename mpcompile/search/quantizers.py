"""Quantizers, one class each: how a real tensor goes to the codes of a grid, at any of several bitwidths, and back.

A quantizer owns what it learns (clips) and nothing else: the weights that it quantizes belong to the layer and are
shared by all bitwidths. Every bitwidth stands for the same real values as nearly as it can: were one candidate larger
than the others, it would rule the mixture. To add one, derive from `FakeQuantizer` and enter it in WEIGHTS or ACTIVATIONS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpcompile.ir import grid as grids
from mpcompile.ir.grid import Grid
from mpcompile.search.mixture import Mixture, codes, levels, step_and_zero

SMALLEST = 1e-4
"""A clip below this is taken as this."""

NORMAL_STEP = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.336, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}
"""Bits → the step of odd levels with which a normal distribution of deviation 1 has the least mean square error."""

HALF_NORMAL_CLIP = {1: 1.224, 2: 1.952, 3: 2.474, 4: 2.899, 5: 3.270, 6: 3.608, 7: 3.921, 8: 4.215}
"""Bits → the largest level, of levels from 0 on, with the least mean square error for the positive half of it."""


class FakeQuantizer(nn.Module, ABC):
    """Real value = scale(b)·q, q on grid(b), for b among `bits`."""

    odd: bool
    """Levels to both sides of 0, without 0; else from 0 on."""

    def __init__(self, bits: Sequence[int]):
        super().__init__()
        self.bits = tuple(bits)

    @abstractmethod
    def clips(self) -> Tensor:
        """[len(bits)]: the largest value that each bitwidth has."""

    @abstractmethod
    def values(self, x: Tensor) -> Tensor:
        """What is quantized, x's shape."""

    @abstractmethod
    def real(self, x: Tensor) -> Tensor:
        """x as the network without quantization has it."""

    def start_from(self, x: Tensor) -> None:
        """Clips from values as they are met, where a quantizer learns them."""

    def mix(self, x: Tensor, probs: Tensor) -> Tensor:
        """Σ_i probs[i]·fake(x, bits[i]) in one pass."""
        return Mixture.apply(self.values(x), self.clips(), probs, self.bits, self.odd)

    def fake(self, x: Tensor, bits: int) -> Tensor:
        """x quantized to `bits` bits and back, x's shape and dtype; gradients pass straight through the rounding."""
        i = self.bits.index(bits)
        clips = self.clips()
        return Mixture.apply(self.values(x), clips[i : i + 1], clips.new_ones(1), (bits,), self.odd)

    def codes(self, x: Tensor, bits: int) -> Tensor:
        """The levels 0 .. grid(bits).levels − 1 that `fake` stands for, int64."""
        clip = self.clips()[self.bits.index(bits)].item()
        return codes(self.values(x), *step_and_zero(clip, bits, self.odd), bits).long()

    def grid(self, bits: int) -> Grid:
        """The integers q."""
        return grids.odd(bits) if self.odd else grids.unsigned(bits)

    def scale(self, bits: int) -> float:
        """Real value of q = 1."""
        return self.clips()[self.bits.index(bits)].item() / levels(bits)


class EdMIPS(FakeQuantizer):
    """Weights: odd levels, a fixed number of deviations apart (CVPR 2020, arXiv 2004.05795), of weights divided by
    their deviation, so that they have deviation 1 at any size. Gradients pass everywhere."""

    odd = True
    tops: Tensor

    def __init__(self, bits: Sequence[int]):
        super().__init__(bits)
        tops = [NORMAL_STEP[b] * levels(b) / 2 for b in self.bits]
        self.register_buffer("tops", torch.tensor(tops), persistent=False)

    def clips(self) -> Tensor:
        return self.tops

    def values(self, x: Tensor) -> Tensor:
        return x / x.square().mean().sqrt().clamp_min(1e-12)

    def real(self, x: Tensor) -> Tensor:
        return self.values(x)


class DoReFa(FakeQuantizer):
    """Weights: x̃ = tanh(w)/(2·max|tanh w|) + 1/2,  w_b = 2·Q_b(x̃) − 1, on the odd grid, scale 1/(2^b − 1) (arXiv
    1606.06160). One bit gives ±1 where most weights are far smaller."""

    odd = True

    def clips(self) -> Tensor:
        return torch.ones(len(self.bits))

    def values(self, x: Tensor) -> Tensor:
        """2x̃ − 1. The gradient goes through tanh, and through the largest |tanh w|."""
        t = torch.tanh(x)
        return t / t.abs().amax().clamp_min(1e-12)

    def real(self, x: Tensor) -> Tensor:
        return self.values(x)


class Pact(FakeQuantizer):
    """Activations: α·Q_b(clip(x, 0, α)/α), unsigned, scale α/(2^b − 1), α learned (arXiv 1805.06085), one for each
    bitwidth: what is best for 8 bits is more than twice what is best for one. It is the ReLU, too."""

    odd = False

    def __init__(self, bits: Sequence[int], alpha: float | None = None):
        """`alpha`: a fixed one, the same for all."""
        super().__init__(bits)
        self.learned = alpha is None
        start = torch.tensor([HALF_NORMAL_CLIP[b] if alpha is None else alpha for b in self.bits])
        if self.learned:
            self.alpha = nn.Parameter(start)
        else:
            self.register_buffer("alpha", start)

    def clips(self) -> Tensor:
        return self.alpha.clamp_min(SMALLEST)

    def values(self, x: Tensor) -> Tensor:
        return x

    def real(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def start_from(self, x: Tensor) -> None:
        """Clips from values as they are met: what would be best were they half of a normal distribution."""
        if self.learned:
            with torch.no_grad():
                above = x[x > 0].float()
                size = float(above.square().mean().sqrt()) if above.numel() else 1.0
                self.alpha.copy_(torch.tensor([HALF_NORMAL_CLIP[b] * size for b in self.bits]))


class LSQ(FakeQuantizer):
    """Activations: s·clamp(round(x/s), 0, 2^b − 1), unsigned, step s learned (arXiv 1902.08153), one for each bitwidth:

        ∂Q/∂s = round(x/s) − x/s within the range, 2^b − 1 above it, 0 below, times g = 1/√(N·(2^b − 1))

    for tensors of N values a sample. It is the ReLU, too. At first s = 2·mean|x|/√(2^b − 1), of x above 0."""

    odd = False

    def __init__(self, bits: Sequence[int]):
        super().__init__(bits)
        self.step = nn.Parameter(torch.tensor([HALF_NORMAL_CLIP[b] / levels(b) for b in self.bits]))
        self.register_buffer("tops", torch.tensor([float(levels(b)) for b in self.bits]), persistent=False)

    tops: Tensor

    def clips(self) -> Tensor:
        return (self.step * self.tops).clamp_min(SMALLEST)

    def values(self, x: Tensor) -> Tensor:
        return x

    def real(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def mix(self, x: Tensor, probs: Tensor) -> Tensor:
        return Mixture.apply(x, self._scaled(x), probs, self.bits, False, True)

    def fake(self, x: Tensor, bits: int) -> Tensor:
        i = self.bits.index(bits)
        clips = self._scaled(x)[i : i + 1]
        return Mixture.apply(x, clips, clips.new_ones(1), (bits,), False, True)

    def _scaled(self, x: Tensor) -> Tensor:
        """The clips, to whose steps gradients arrive times g. Their values are exactly `clips`': codes must be those that
        are exported."""
        g = (max(1, x[:1].numel()) * self.tops).rsqrt()
        clips = self.clips()
        return clips.detach() + (g * (clips - clips.detach()))

    def start_from(self, x: Tensor) -> None:
        with torch.no_grad():
            above = x[x > 0].float()
            if above.numel():
                self.step.copy_(2 * above.mean() / self.tops.sqrt())


WEIGHTS: dict[str, type[FakeQuantizer]] = {"edmips": EdMIPS, "dorefa": DoReFa}
ACTIVATIONS: dict[str, type[FakeQuantizer]] = {"pact": Pact, "lsq": LSQ}
