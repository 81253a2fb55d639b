"""A quantizer of signed tensors: unsigned codes around a whole zero point, at one bit as a rule −1 and +1.

    Q_i(x) = s_i·(u_i − z_i),  u_i = clamp(round(x/s_i + z_i), 0, n_i),  n_i = 2^b_i − 1,  s_i = α_i/(n_i − z_i)

α_i, the largest value, is learned; z_i is settled from the first values that are met: SiLU's, of which few are below 0,
get few codes there. Real 0 has a code, so that padding costs nothing; one bit has none to spare where x is to both sides.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpcompile.ir import grid as grids
from mpcompile.ir.grid import Grid
from mpcompile.search.mixture import levels
from mpcompile.search.quantizers import SMALLEST, FakeQuantizer

SAMPLE = 8192
"""Values that a range is settled from."""
SHRUNK = tuple(0.9**i for i in range(30))
"""Ranges that are tried: these parts of all that was met."""


class ZeroPoint(FakeQuantizer):
    """Activations of both signs, or of one. `real` is x itself."""

    odd = False
    zeros: Tensor

    def __init__(self, bits: Sequence[int]):
        super().__init__(bits)
        self.alpha = nn.Parameter(torch.ones(len(self.bits)))
        self.register_buffer("zeros", torch.tensor([0.5 if b == 1 else float(1 << b - 1) for b in self.bits]))

    def clips(self) -> Tensor:
        return self.alpha.clamp_min(SMALLEST)

    def values(self, x: Tensor) -> Tensor:
        return x

    def real(self, x: Tensor) -> Tensor:
        return x

    def mix(self, x: Tensor, probs: Tensor) -> Tensor:
        return _Mixture.apply(x, self.clips(), probs, tuple(self.zeros.tolist()), self.bits)

    def fake(self, x: Tensor, bits: int) -> Tensor:
        i = self.bits.index(bits)
        clips = self.clips()
        return _Mixture.apply(x, clips[i : i + 1], clips.new_ones(1), (self.zeros[i].item(),), (bits,))

    def codes(self, x: Tensor, bits: int) -> Tensor:
        zero = self.zeros[self.bits.index(bits)].item()
        return _codes(x, self._spacing(bits), zero, bits).long()

    def grid(self, bits: int) -> Grid:
        zero = self.zeros[self.bits.index(bits)].item()
        return grids.bipolar() if zero == 0.5 else grids.unsigned(bits, int(zero))

    def scale(self, bits: int) -> float:
        return self._spacing(bits) / self.grid(bits).step

    def _spacing(self, bits: int) -> float:
        i = self.bits.index(bits)
        return self.clips()[i].item() / (levels(bits) - self.zeros[i].item())

    @torch.no_grad()
    def start_from(self, x: Tensor) -> None:
        """Range and zero point of each bitwidth: of many ranges, the one with the least square error."""
        x = x.detach().float().reshape(-1)
        x = x[:: max(1, len(x) // SAMPLE)]
        low, high = min(0.0, x.min().item()), max(0.0, x.max().item())
        if low == high:
            return
        for i, b in enumerate(self.bits):
            n = levels(b)
            tried = []
            for part in SHRUNK:
                spacing = part * (high - low) / n
                tried.append((spacing, float(min(max(round(-part * low / spacing), 0), n - 1))))
                if b == 1:
                    tried.append((2 * part * max(high, -low), 0.5))
            errors = [(_fake(x, spacing, zero, b) - x).square().sum().item() for spacing, zero in tried]
            spacing, zero = tried[errors.index(min(errors))]
            self.alpha[i], self.zeros[i] = spacing * (n - zero), zero


def _codes(x: Tensor, spacing: float, zero: float, bits: int) -> Tensor:
    """The levels u as numbers of x's dtype."""
    if zero == 0.5:
        return (x >= 0).to(x.dtype)
    return torch.mul(x, 1 / spacing).add_(zero).round_().clamp_(0.0, levels(bits))


def _fake(x: Tensor, spacing: float, zero: float, bits: int) -> Tensor:
    return _codes(x, spacing, zero, bits).sub_(zero).mul_(spacing)


class _Mixture(torch.autograd.Function):
    """x (any shape, float32 or bfloat16), α [B] > 0, probs [B] → Σ probs[i]·Q_i(x), x's shape and dtype. Only x is kept
    for the backward pass; the gradient passes straight through the rounding, and beyond a range's ends to its α."""

    @staticmethod
    def forward(ctx, x: Tensor, alpha: Tensor, probs: Tensor, zeros: tuple[float, ...], bits: Sequence[int]) -> Tensor:
        ctx.save_for_backward(x, alpha, probs)
        ctx.zeros, ctx.bits = zeros, bits
        wide = x.float()
        parts = _parts(alpha, probs, zeros, bits)
        return sum((p * _fake(wide, s, z, b) for p, s, z, b in parts[1:]), _first(wide, *parts[0])).to(x.dtype)

    @staticmethod
    def backward(ctx, g: Tensor):
        x, alpha, probs = ctx.saved_tensors
        wide, grad = x.float(), g.float()
        to_x = torch.zeros_like(wide)
        to_alpha, to_probs = [], []
        for p, spacing, zero, b in _parts(alpha, probs, ctx.zeros, ctx.bits):
            n = levels(b)
            above, below = wide > spacing * (n - zero), wide < -spacing * zero
            to_x.add_(grad.masked_fill(above | below, 0.0), alpha=p)
            over, under = grad[above].sum().item(), grad[below].sum().item()
            to_alpha.append(p * (over - under * zero / (n - zero)))
            if ctx.needs_input_grad[2]:
                to_probs.append((grad * _fake(wide, spacing, zero, b)).sum().item())
        to_probs_all = probs.new_tensor(to_probs) if to_probs else None
        return to_x.to(x.dtype), alpha.new_tensor(to_alpha), to_probs_all, None, None


def _first(x: Tensor, p: float, spacing: float, zero: float, bits: int) -> Tensor:
    found = _fake(x, spacing, zero, bits)
    return found if p == 1 else found.mul_(p)


def _parts(alpha: Tensor, probs: Tensor, zeros: Sequence[float], bits: Sequence[int]):
    """(p, s, z, bits) of each candidate."""
    return [
        (p, a / (levels(b) - z), z, b) for a, p, z, b in zip(alpha.tolist(), probs.tolist(), zeros, bits, strict=True)
    ]
