"""BSQ, bit-level sparsity (ICLR 2021, arXiv 2102.10462): bits of weights by a group lasso over bit planes.

    loss = CE + α/TP·Σ_layers N·n·Σ_b ‖[p_b; n_b]‖      N numbers and n planes of a layer, TP all numbers

Now and then (`prune`) codes are made anew and planes without a one fall away: n of a layer is what is left. Weights of n
magnitude planes have n + 1 bits with their sign, so a layer gets the least candidate with as many. Training begins at the
most bits; the shared retraining afterwards is the method's finetuning, from the float network as for every method.

Ours is how α is found: the authors try values. It doubles at each pruning while the cost is above the target and is 0 from
the one on at which it is not. Activations are not searched: they have `activations` bits, or the nearest that there are.
Where that alone is above the budget, or planes are left over, landing does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mpcompile.search.bit_planes import BitPlanes
from mpcompile.search.config import SearchOptions
from mpcompile.search.layers import BitAssignment, BitChoice, Network
from mpcompile.search.loop import Batches, draw, learned, steps_of, take_step
from mpcompile.search.method_options import BSQOptions
from mpcompile.search.methods.base import Found, Method, Query, Scores


class BSQ(Method):
    """Each budget is searched by itself, from the float network."""

    def __init__(self, network: Network, options: BSQOptions = BSQOptions()):
        self.options = options
        self.choices = {k: c for k, c in network.weights.items() if c.searched}
        self.tensors = {t: _nearest(c.candidates, options.activations) for t, c in network.tensors.items()}

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> BSQ:
        return cls(network, search.bsq)

    def search(self, query: Query) -> Found:
        target, o, network = query.target("bsq"), self.options, query.network
        planes, alpha, first = self._begin(query), o.strength, 0
        if state := query.keeper.resume() if query.keeper else None:
            first, alpha = state["part"], state["alpha"]
            network.load_state_dict(state["network"])
            for name, layer in planes.items():
                layer.planes = nn.Parameter(state["planes"][name]["planes"])
                layer.scale = nn.Parameter(state["planes"][name]["scale"])
        network.assign(BitAssignment({}, self.tensors))
        figures: dict[str, float] = {}
        with self._in_place(network, planes):
            for part in range(first, o.prune):
                figures["loss"] = self._train(query, planes, alpha, part)
                for layer in planes.values():
                    layer.prune()
                figures["expected"] = query.cost.of(self._bits(network, planes))
                alpha = 2 * alpha if figures["expected"] > target else 0.0
                query.show("bit planes", part + 1, o.prune, figures)
                if query.keeper:
                    query.keeper.keep(
                        lambda: {
                            "part": part + 1,
                            "alpha": alpha,
                            "network": dict(network.state_dict()),
                            "planes": {name: dict(found.state_dict()) for name, found in planes.items()},
                        }
                    )
            found = self._bits(network, planes)
            scores = self._scores(network, planes, found)
        return Found(found, scores, {}, {**figures, "argmax": query.cost.of(found)})

    # -- bits ------------------------------------------------------------------------------------------
    def _bits(self, network: Network, planes: dict[str, BitPlanes]) -> BitAssignment:
        """With a sign beside the planes, as far as there are candidates."""
        chosen = {k: c.candidates[-1] for k, c in network.weights.items()}
        for name, choice in self.choices.items():
            enough = [b for b in choice.candidates if b >= planes[name].count + 1]
            chosen[name] = (enough or [choice.candidates[-1]])[0]
        return BitAssignment(chosen, dict(self.tensors))

    @torch.no_grad()
    def _scores(self, network: Network, planes: dict[str, BitPlanes], found: BitAssignment) -> Scores:
        """Of weights the error that a candidate makes of them, over their own square, negative; of tensors how far from
        the bits that they have, in octaves."""
        weights: dict[str, Tensor] = {}
        for name, choice in self.choices.items():
            values = planes[name]()
            real = choice.quantizer.real(values)
            off = [(choice.quantizer.fake(values, b) - real).square().mean() for b in choice.candidates]
            weights[name] = -torch.stack(off) / real.square().mean().clamp_min(1e-12)
        tensors = {
            t: -torch.tensor([abs(math.log2(b / found.tensors[t])) for b in c.candidates])
            for t, c in network.tensors.items()
            if c.searched
        }
        return {"weights": weights, "tensors": tensors}

    # -- training --------------------------------------------------------------------------------------
    def _begin(self, query: Query) -> dict[str, BitPlanes]:
        """Of the float network's weights, as layers hand them to their choices."""
        seen: dict[str, Tensor] = {}
        network = query.network
        network.assign(None)

        def look(name: str, choice: BitChoice):
            def study(x: Tensor) -> Tensor:
                seen[name] = choice.quantizer.real(x).detach()
                return seen[name]

            return study

        for name, choice in self.choices.items():
            choice.study = look(name, choice)
        inputs, _ = query.samples.batch(torch.arange(2), 0, draw(query.seed, "planes"))
        training = network.training
        network.eval()
        with torch.no_grad():
            network(inputs)
        network.train(training)
        for choice in self.choices.values():
            choice.study = None
        return {k: BitPlanes(seen[k], c.candidates[-1] - 1 or 1) for k, c in self.choices.items()}

    @contextmanager
    def _in_place(self, network: Network, planes: dict[str, BitPlanes]) -> Iterator[None]:
        """Of the layers' weights, which do not learn meanwhile."""
        weights = [k.weight for k in network.layers() if k.name in planes]
        learning = [w for w in weights if w.requires_grad]
        for w in learning:
            w.requires_grad_(False)
        for name, choice in self.choices.items():
            choice.study = lambda x, part=planes[name]: part()
        try:
            yield
        finally:
            for choice in self.choices.values():
                choice.study = None
            for w in learning:
                w.requires_grad_(True)

    def _train(self, query: Query, planes: dict[str, BitPlanes], alpha: float, part: int) -> float:
        """From one pruning to the next, with an optimizer of its own: planes are other parameters after each."""
        recipe, network = query.recipe, query.network
        batches = Batches(query.samples, recipe, query.seed, "planes")
        total = steps_of(recipe.epochs, batches.each)
        numbers = sum(p.planes[0, 0].numel() for p in planes.values())
        others = learned(network)
        optimizer = torch.optim.Adam(
            [
                {"params": others, "lr": recipe.rate, "weight_decay": recipe.decay},
                {"params": [p.scale for p in planes.values()], "lr": recipe.rate},
                {"params": [p.planes for p in planes.values()], "lr": self.options.rate},
            ]
        )
        loss = 0.0
        network.train()
        for step in range(total * part // self.options.prune, total * (part + 1) // self.options.prune):
            lasso = alpha / numbers * torch.stack([p.lasso() for p in planes.values()]).sum() if planes else None
            chance = draw(query.seed, "planes", "forward", step)
            loss = take_step(network, batches[step], [optimizer], query.loss, chance, lasso)
            for layer in planes.values():
                layer.clamp()
        return loss


def _nearest(candidates: tuple[int, ...], bits: int) -> int:
    return min(candidates, key=lambda b: (abs(b - bits), -b))
