"""EdMIPS (CVPR 2020, arXiv 2004.05795): composite convolutions over one set of weights, searched at a single level.

    Ŵ = Σ softmax(α)_i·W_{b_i},  X̂ = Σ softmax(β)_j·X_{b_j};  one convolution;  loss = CE + η·cost/target, α = β = 0.01

Weights and strengths step at once on the same images, of all that there are: no part is held out. The strengths by
stochastic gradient descent with momentum 0.9 and weight decay 1e-4, rate 0.01, a tenth of it after 40 and again after 80 %
of the search (10 and 20 of the authors' 25 epochs); there is no temperature. With `objective.weights` η is the user's, as
in the paper; with targets it is solved for, see mixtures.py. The cost is the expected latency, or with `kind = "bitops"`
the authors' own: Σ MACs·E[w bits]·E[a bits].

The weights' quantizer "edmips" is the method's; activations are those of the configuration, where the authors have HWGQ's
fixed steps.
"""

from __future__ import annotations

import torch

from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import Network
from mpcompile.search.method_options import EdMIPSOptions
from mpcompile.search.methods.mixtures import Mixtures

FALLS_AT = 0.4, 0.8
"""Of the search: the rate becomes a tenth."""


class EdMIPS(Mixtures):
    """Strengths are at first all `start`."""

    together = True

    def __init__(self, network: Network, options: EdMIPSOptions = EdMIPSOptions()):
        super().__init__(network, options.start, options.settle)
        self.options = options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> EdMIPS:
        return cls(network, search.edmips)

    def temperature(self, progress: float) -> float:
        return 1.0

    def optimizer(self) -> torch.optim.Optimizer:
        o = self.options
        return torch.optim.SGD(self.parameters(), lr=o.strength_rate, momentum=o.momentum, weight_decay=o.decay)

    def rate_at(self, progress: float) -> float:
        return self.options.strength_rate * 0.1 ** sum(progress >= at for at in FALLS_AT)
