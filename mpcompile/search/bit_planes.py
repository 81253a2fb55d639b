"""BSQ's weights (ICLR 2021, arXiv 2102.10462): bit planes of magnitudes as parameters.

    W = scale·R(v),  v = Σ_b 2^b·(p_b − n_b)/(2^n − 1),  R(v) = sign(v)·round(min(|v|, 1)·(2^n − 1))/(2^n − 1)

p_b and n_b are real numbers in 0..2; gradients pass straight through R. The sign is a bit beside the n.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST = 8
"""Planes: a code that outgrows them is clamped."""


class BitPlanes(nn.Module):
    """Of one tensor of weights. `planes`: float32 [n, 2, …], p and n."""

    planes: nn.Parameter

    def __init__(self, weights: Tensor, count: int):
        super().__init__()
        top = weights.abs().amax().clamp_min(1e-12)
        self.scale = nn.Parameter(top.clone())
        codes = (weights / top * ((1 << count) - 1)).round().long()
        self.planes = nn.Parameter(split(codes, count))

    @property
    def count(self) -> int:
        return len(self.planes)

    def real(self) -> Tensor:
        """v."""
        steps = 2.0 ** torch.arange(self.count, dtype=self.planes.dtype)
        signed = self.planes[:, 0] - self.planes[:, 1]
        return torch.tensordot(steps, signed, 1) / ((1 << self.count) - 1)

    def forward(self) -> Tensor:
        v, top = self.real(), (1 << self.count) - 1
        rounded = v.sign() * (v.abs().clamp_max(1) * top).round() / top
        return self.scale * (v + (rounded - v).detach())

    def lasso(self) -> Tensor:
        """Σ_b ‖[p_b; n_b]‖, times numbers and planes: what the group lasso adds before it is divided by all numbers."""
        norms = (1e-8 + self.planes.square().flatten(1).sum(1)).sqrt()
        return self.planes[0, 0].numel() * self.count * norms.sum()

    @torch.no_grad()
    def clamp(self) -> None:
        """After every step."""
        self.planes.clamp_(0, 2)

    @torch.no_grad()
    def prune(self) -> None:
        """Codes as they are rounded are split anew, into one plane more where one has outgrown them; planes that are 0
        everywhere fall away at the top and at the bottom, at least one stays. W stays as it was rounded."""
        n = self.count
        codes = (self.real() * ((1 << n) - 1)).round().long()
        more = int(codes.abs().max()) > (1 << n) - 1 and n < MOST
        planes = split(codes.clamp(1 - (1 << (n + more)), (1 << (n + more)) - 1), n + more)
        used = planes.flatten(1).any(1).nonzero().flatten().tolist() or [0]
        kept = planes[used[0] : used[-1] + 1]
        unit = float(self.scale) / ((1 << n) - 1) * 2 ** used[0]
        """Of code 1."""
        self.scale.data.fill_(unit * ((1 << len(kept)) - 1))
        self.planes = nn.Parameter(kept.contiguous())


def split(codes: Tensor, count: int) -> Tensor:
    """int64 […] → float32 [count, 2, …]: the bits of positive and of negative codes' magnitudes."""
    sides = torch.stack([codes.clamp_min(0), (-codes).clamp_min(0)])
    return torch.stack([(sides >> b) & 1 for b in range(count)]).float()
