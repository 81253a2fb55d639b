"""EBS, Efficient Bitwidth Search (arXiv 2003.07577): one strength for each candidate bitwidth, learned by gradient.

    p = softmax(r/τ) for a layer's weights, q = softmax(s/τ) for a tensor;  Ŵ = Σ p_i·W_{b_i},  X̂ = Σ q_j·X_{b_j};  ONE
    convolution

Bilevel, first order: weights step on one half of the images, strengths on the other, in turn. The stochastic variant adds
Gumbel noise to the strengths in every step. τ falls during the search, so that at its end the mixture is close to what
argmax reads out. The paper's own schedule was not available; how a budget is kept is ours, see mixtures.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import Network
from mpcompile.search.method_options import EBSOptions
from mpcompile.search.methods.mixtures import Mixtures


class EBS(Mixtures):
    """Strengths are at first all equal."""

    def __init__(self, network: Network, options: EBSOptions = EBSOptions()):
        super().__init__(network, 0.0, options.settle)
        self.options = options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> EBS:
        return cls(network, search.ebs)

    def temperature(self, progress: float) -> float:
        return self.options.hot * (self.options.cold / self.options.hot) ** progress

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.options.strength_rate, betas=(0.5, 0.999), fused=True)

    def rate_at(self, progress: float) -> float:
        return self.options.strength_rate

    def noise(self, strength: Tensor, draw: torch.Generator) -> Tensor:
        if not self.options.gumbel:
            return strength
        uniform = torch.rand(strength.shape, generator=draw).clamp(1e-6, 1 - 1e-6)
        return strength - torch.log(-torch.log(uniform))
