"""Successive halving (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943) over what other methods propose.

Losses that are measured without training say little of bits that no network survives untrained, and say it of one choice at
a time. So candidates are really trained, each from the float network, for a moment, and judged by their loss on images that
are held out from that training. The better half of them is trained anew, twice as long, until one is left:

    8 candidates × 1 epoch,  4 × 2,  2 × 4     with epochs = 1: as much as 24 epochs of one network

Candidates are what `sources` come to, and mutants of these: choices drawn anew, then made to keep the budget at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mpcompile.errors import UsageError
from mpcompile.search.config import SearchOptions
from mpcompile.search.drawing import drawn, fitted, mixed
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.loop import Keeper, Recipe, draw, retrain
from mpcompile.search.method_options import HalvingOptions
from mpcompile.search.methods.base import Found, Method, Query
from mpcompile.search.objective import land

TRIES = 20
"""Mutants that are known already, for each candidate, until there are no more."""


@dataclass
class Trials:
    """Losses of trainings that are done: (epochs, bits as text) → loss. Written down after each."""

    keeper: Keeper | None

    def __post_init__(self) -> None:
        state = self.keeper.resume() if self.keeper else None
        self.losses: dict[str, float] = dict(state["losses"]) if state else {}

    def add(self, key: str, loss: float) -> None:
        self.losses[key] = loss
        if self.keeper:
            self.keeper.keep(lambda: {"losses": dict(self.losses)})


class Halving(Method):
    """The one of several candidates that trains best."""

    def __init__(self, sources: Mapping[str, Method], options: HalvingOptions = HalvingOptions()):
        self.sources, self.options = sources, options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> Halving:
        from mpcompile.search.methods import METHODS  # which has this one, too

        return cls({name: METHODS[name].configured(network, search) for name in search.halving.sources}, search.halving)

    def search(self, query: Query) -> Found:
        target, start = query.target("halving"), _copied(query.network)
        made, states = self._proposed(query, start)
        candidates = self._with_mutants(query, made, target)
        trials, epochs = Trials(query.keeper), self.options.epochs
        ranked = [(0.0, bits) for bits in candidates]
        total, done = _trainings(len(candidates)), 0
        while len(ranked) > 1:
            found: list[tuple[float, BitAssignment]] = []
            for _, bits in ranked:
                found.append((self._tried(query, start, bits, epochs, trials), bits))
                done += 1
                query.show("halving", done, total, {"loss": found[-1][0]})
            ranked = sorted(found, key=lambda one: one[0])[: len(found) // 2]
            epochs *= 2
        loss, best = ranked[0]
        query.network.load_state_dict(start)
        return Found(best, None, {"sources": states}, {"loss": loss, "argmax": query.cost.of(best)})

    # -- candidates ------------------------------------------------------------------------------------
    def _proposed(self, query: Query, start: dict) -> tuple[dict[str, BitAssignment], dict[str, dict]]:
        """What each source comes to, landed on the budget, and the states that theirs ended in."""
        made: dict[str, BitAssignment] = {}
        states: dict[str, dict] = {}
        target = query.target("halving")
        for name, method in self.sources.items():
            query.network.load_state_dict(start)
            before = (query.before or {}).get("sources", {}).get(name)
            keeper = query.keeper
            own = replace(keeper, path=keeper.path.with_suffix(f".{name}.npz")) if keeper else None
            try:
                found = method.search(replace(query, before=before or None, keeper=own))
            except UsageError:
                if name != "uniform":  # of which there may be none below the budget
                    raise
                continue
            states[name] = found.state
            scores = found.scores
            made[name] = found.assignment if scores is None else land(found.assignment, scores, query.cost, target)
            if own:
                own.done()
        query.network.load_state_dict(start)
        return made, states

    def _with_mutants(self, query: Query, made: dict[str, BitAssignment], target: float) -> list[BitAssignment]:
        o, generator = self.options, draw(query.seed, "mutants")
        parents = list({str(bits.to_json()): bits for bits in made.values()}.values())
        known = {str(bits.to_json()): bits for bits in parents}
        for i in range(TRIES * o.candidates):
            if len(known) >= o.candidates:
                break
            parent = parents[i % len(parents)] if parents else drawn(query.network, generator)
            child = fitted(
                mixed(parent, drawn(query.network, generator), o.mutation, generator), query.cost, target, generator
            )
            known.setdefault(str(child.to_json()), child)
        return list(known.values())

    # -- trials ----------------------------------------------------------------------------------------
    def _tried(self, query: Query, start: dict, bits: BitAssignment, epochs: float, trials: Trials) -> float:
        """The held-out loss after a training from the float network."""
        key = f"{epochs:g} {bits.to_json()}"
        if key not in trials.losses:
            mine, others = query.samples.split(self.options.held_out, query.seed)
            r, network = query.recipe, query.network
            network.load_state_dict(start)
            recipe = Recipe(epochs, r.batch, r.rate, r.decay, r.shift)
            retrain(network, bits, mine, recipe, seed=query.seed, loss=query.loss, what="trial")
            trials.add(key, Judge(network, others, len(others), query.loss, query.seed, r.batch)(bits))
        return trials.losses[key]


def _copied(network: Network) -> dict:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _trainings(candidates: int) -> int:
    total = 0
    while candidates > 1:
        total, candidates = total + candidates, candidates // 2
    return total
