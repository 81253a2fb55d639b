"""What a search method is: a class with `parameters`, `mix`, `cost`, `readout`. The loop is shared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import BitAssignment, BitChoice, Network
from mpcompile.search.objective import Cost


class Method(nn.Module, ABC):
    """Owns what is learned of the bits; its parameters are the ones that the loop steps on the validation half.

    It changes the network only by what it puts into its choices.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.weights: Mapping[str, BitChoice] = {k: v for k, v in network.weights.items() if v.searched}
        self.tensors: Mapping[str, BitChoice] = {k: v for k, v in network.tensors.items() if v.searched}

    @staticmethod
    @abstractmethod
    def configured(network: Network, search: SearchOptions) -> Method:
        """The method for a network, with its options from the configuration."""

    @abstractmethod
    def mix(self, network: Network, progress: float, draw: torch.Generator, *, learn: bool) -> None:
        """Sets every choice for the next forward pass. `progress` 0..1 is how much of the search is over, `draw` the only
        source of chance; `learn`: gradients shall reach the method's parameters."""

    @abstractmethod
    def cost(self, objective: Cost) -> Tensor:
        """The objective's expected cost of what `mix` set last, a scalar with gradients."""

    @abstractmethod
    def readout(self, network: Network) -> BitAssignment:
        """The bits that the search has come to."""

    @abstractmethod
    def log_probs(self) -> dict[str, dict[str, Tensor]]:
        """ "weights" and "tensors": name → log probability of each candidate [B], to land on a budget and for
        reports."""
