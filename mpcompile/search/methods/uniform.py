"""One pair of bits in all layers: what every other method is compared with."""

from __future__ import annotations

from mpcompile.errors import UsageError
from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import Network
from mpcompile.search.methods.base import Found, Method, Query


class Uniform(Method):
    """Of the pairs that keep the budget the one with the most bits, weights' times activations'; of several the dearest."""

    def __init__(self, network: Network, weights: list[int], activations: list[int]):
        self.pairs = [(w, a) for w in sorted(weights) for a in sorted(activations)]

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> Uniform:
        return cls(network, search.weights, search.activations)

    def search(self, query: Query) -> Found:
        """Raises UsageError where no pair keeps the budget."""
        target, cost = query.target("uniform"), query.cost
        made = [(w, a, query.network.uniform(w, a)) for w, a in self.pairs]
        fitting = [(w * a, cost.of(bits), w, a) for w, a, bits in made if cost.of(bits) <= target]
        if not fitting:
            least = min(cost.of(bits) for *_, bits in made)
            raise UsageError(f"no uniform network costs {target:.4g} {cost.unit} or less: the least costs {least:.4g}")
        *_, w, a = max(fitting)
        return Found(query.network.uniform(w, a), figures={"w": w, "a": a})
