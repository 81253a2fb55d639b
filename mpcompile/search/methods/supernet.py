"""A one-shot supernet with evolutionary selection, as in Single Path One-Shot (ECCV 2020, arXiv 1904.00420).

All assignments share one set of weights. In each step of its training every choice has a candidate drawn anew; then
nothing is trained any more: assignments that keep the budget are judged by their loss on images held out from that
training, with BatchNorm's statistics of the judged batch, as those of the training are of no one assignment. The best so
far are parents of the next generation: half of it by mutation, half by crossing two of them, each made to keep the budget
at random.
"""

from __future__ import annotations

import torch

from mpcompile.search.config import SearchOptions
from mpcompile.search.drawing import drawn, fitted, mixed
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Recipe, draw, retrain
from mpcompile.search.method_options import SupernetOptions
from mpcompile.search.methods.base import Found, Method, Query


class Supernet(Method):
    """Trained for the first budget; those after it only select."""

    def __init__(self, network: Network, options: SupernetOptions = SupernetOptions()):
        self.options = options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> Supernet:
        return cls(network, search.supernet)

    def search(self, query: Query) -> Found:
        o, target, network = self.options, query.target("supernet"), query.network
        mine, others = query.samples.split(query.recipe.held_out, query.seed)
        if query.before:
            network.load_state_dict(query.before["network"])
        else:
            r = query.recipe
            recipe = Recipe(r.epochs, r.batch, r.rate, r.decay, r.shift)
            retrain(
                network, None, mine, recipe, seed=query.seed, loss=query.loss, keeper=query.keeper, show=query.show,
                what="supernet", bits=lambda step: drawn(network, draw(query.seed, "path", step)),
            )  # fmt: skip
        judge = Judge(
            network, others, o.samples, query.loss, query.seed, query.recipe.batch, statistics_of_the_batch=True
        )
        losses: dict[str, tuple[float, BitAssignment]] = {}

        def judged(bits: BitAssignment) -> None:
            if (key := str(bits.to_json())) not in losses:
                losses[key] = judge(bits), bits

        generator = draw(query.seed, "evolution")
        for _ in range(o.population):
            judged(fitted(drawn(network, generator), query.cost, target, generator))
        for generation in range(o.generations):
            parents = [bits for _, bits in sorted(losses.values(), key=lambda found: found[0])[: o.parents]]
            for i in range(o.population):
                one, other = (parents[int(torch.randint(len(parents), (), generator=generator))] for _ in range(2))
                child = mixed(
                    one, drawn(network, generator) if i % 2 else other, o.mutation if i % 2 else 0.5, generator
                )
                judged(fitted(child, query.cost, target, generator))
            best = min(loss for loss, _ in losses.values())
            query.show("evolution", generation + 1, o.generations, {"loss": best})
        loss, bits = min(losses.values(), key=lambda found: found[0])
        return Found(bits, None, {"network": dict(network.state_dict())}, {"loss": loss, "judged": float(len(losses))})
