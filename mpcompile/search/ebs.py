"""EBS, Efficient Bitwidth Search (arXiv 2003.07577): one strength for each candidate bitwidth, learned by gradient.

    p = softmax(r/τ) for a layer's weights, q = softmax(s/τ) for a tensor;  Ŵ = Σ p_i·W_{b_i},  X̂ = Σ q_j·X_{b_j};  ONE
    convolution

The stochastic variant adds Gumbel noise to the strengths in every step. τ falls during the search, so that at its end
the mixture is close to what argmax reads out, and the expected latency to the latency of that. The paper's own schedule
was not available.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import BitAssignment, BitChoice, Network
from mpcompile.search.methods import Method
from mpcompile.search.objective import Cost


@dataclass(frozen=True)
class EBSOptions:
    """`gumbel`: the stochastic variant. τ falls from `hot` to `cold` geometrically."""

    gumbel: bool = False
    hot: float = 1.0
    cold: float = 0.2


class EBS(Method):
    """One vector of strengths for each searched layer and tensor, at first all equal."""

    def __init__(self, network: Network, options: EBSOptions = EBSOptions()):
        super().__init__(network)
        self.options = options
        self.strengths = nn.ParameterDict(
            {_key(k): nn.Parameter(torch.zeros(len(k.candidates))) for k in self._choices()}
        )
        self._probs: dict[str, Tensor] = {}

    @staticmethod
    def configured(network: Network, search: SearchOptions) -> EBS:
        return EBS(network, EBSOptions(search.gumbel, search.hot, search.cold))

    def _choices(self) -> list[BitChoice]:
        return [*self.weights.values(), *self.tensors.values()]

    def temperature(self, progress: float) -> float:
        """τ after this part of the search."""
        return self.options.hot * (self.options.cold / self.options.hot) ** progress

    def mix(self, network: Network, progress: float, draw: torch.Generator, *, learn: bool) -> None:
        tau = self.temperature(progress)
        for choice in self._choices():
            strength = self.strengths[_key(choice)]
            if self.options.gumbel:
                uniform = torch.rand(strength.shape, generator=draw).clamp(1e-6, 1 - 1e-6)
                strength = strength - torch.log(-torch.log(uniform))
            probs = torch.softmax(strength / tau, 0)
            choice.probs = self._probs[choice.name] = probs if learn else probs.detach()

    def cost(self, objective: Cost) -> Tensor:
        return objective.expected(
            {name: self._probs[k.name] for name, k in self.weights.items()},
            {name: self._probs[k.name] for name, k in self.tensors.items()},
        )

    def readout(self, network: Network) -> BitAssignment:
        chosen = {k.name: k.candidates[int(self.strengths[_key(k)].argmax())] for k in self._choices()}
        return BitAssignment(
            {name: chosen.get(k.name, k.candidates[-1]) for name, k in network.weights.items()},
            {name: chosen.get(k.name, k.candidates[-1]) for name, k in network.tensors.items()},
        )

    @torch.no_grad()
    def log_probs(self) -> dict[str, dict[str, Tensor]]:
        return {
            kind: {name: torch.log_softmax(self.strengths[_key(k)], 0) for name, k in choices.items()}
            for kind, choices in (("weights", self.weights), ("tensors", self.tensors))
        }


def _key(choice: BitChoice) -> str:
    """A name that torch takes for a parameter."""
    return choice.name.replace(".", "/")
