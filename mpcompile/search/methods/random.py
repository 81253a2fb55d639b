"""Bits at random that keep the budget: the other thing that every method has to beat."""

from __future__ import annotations

from mpcompile.search.config import SearchOptions
from mpcompile.search.drawing import drawn, fitted
from mpcompile.search.judge import Judge
from mpcompile.search.layers import Network
from mpcompile.search.loop import draw
from mpcompile.search.method_options import RandomOptions
from mpcompile.search.methods.base import Found, Method, Query


class Random(Method):
    """Of several draws the one whose loss is least, without training."""

    def __init__(self, network: Network, options: RandomOptions = RandomOptions()):
        self.options = options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> Random:
        return cls(network, search.random)

    def search(self, query: Query) -> Found:
        o, target = self.options, query.target("random")
        made = []
        for i in range(o.draws):
            generator = draw(query.seed, "random", i)
            made.append(fitted(drawn(query.network, generator), query.cost, target, generator))
        if len(made) == 1:
            return Found(made[0])
        judge = Judge(query.network, query.samples, o.samples, query.loss, query.seed, query.recipe.batch)
        losses = []
        for i, bits in enumerate(made):
            losses.append(judge(bits))
            query.show("random bits", i + 1, len(made), {"loss": losses[-1]})
        best = min(range(len(made)), key=losses.__getitem__)
        return Found(made[best], figures={"loss": losses[best]})
