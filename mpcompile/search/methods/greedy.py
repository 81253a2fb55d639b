"""A greedy walk down from the most bits: again and again the one change is made that loses the least for what it saves.

    min (L(changed) − L(now)) / (cost(now) − cost(changed)),  over every choice and every candidate below its bits

The losses are measured, at the bits of the moment, without training. What a change lost when it was measured last orders
the next measurements, and they end when the best of the fresh ones is no worse than what the rest lost then.
"""

from __future__ import annotations

from dataclasses import replace

from mpcompile.search.config import SearchOptions
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.method_options import GreedyOptions
from mpcompile.search.methods.base import Found, Method, Query
from mpcompile.search.objective import Cost

Change = tuple[str, str, int]
"""("weights" or "tensors", name, bits)."""


class Greedy(Method):
    """Ends at the first bits that keep the budget."""

    def __init__(self, network: Network, options: GreedyOptions = GreedyOptions()):
        self.options = options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> Greedy:
        return cls(network, search.greedy)

    def search(self, query: Query) -> Found:
        target, cost = query.target("greedy"), query.cost
        o = self.options
        judge = Judge(
            query.network, query.samples, o.samples, query.loss, query.seed, query.recipe.batch,
            statistics_of_the_batch=o.renorm,
        )  # fmt: skip
        state = (query.keeper.resume() if query.keeper else None) or query.before
        if state:
            now = BitAssignment.from_json(state["assignment"])
            known: dict[Change, float] = {(kind, name, bits): loss for kind, name, bits, loss in state["lost"]}
        else:
            now, known = _widest(cost), {}
        first = spent = cost.of(now)
        while spent > target:
            found = self._best(now, spent, cost, judge, known)
            if found is None:  # nothing alone saves anything
                now = cost.cheapest()
            else:
                now = _changed(now, found)
            spent = cost.of(now)
            query.show("greedy walk", int(1000 * min(1.0, (first - spent) / max(first - target, 1e-30))), 1000, {})
            if query.keeper:
                query.keeper.keep(lambda: _state(now, known))
        return Found(now, None, _state(now, known), {"loss": judge(now), "argmax": spent})

    @staticmethod
    def _best(now: BitAssignment, spent: float, cost: Cost, judge: Judge, known: dict[Change, float]) -> Change | None:
        saved = {c: spent - cost.of(_changed(now, c)) for c in _narrower(now, cost)}
        saved = {c: s for c, s in saved.items() if s > 0}
        if not saved:
            return None
        base = judge(now)
        left = sorted(saved, key=lambda c: known.get(c, -float("inf")) / saved[c])
        best, least = None, float("inf")
        for change in left:
            if best is not None and known.get(change, -float("inf")) / saved[change] > least:
                break
            known[change] = judge(_changed(now, change)) - base
            if (ratio := known[change] / saved[change]) < least:
                best, least = change, ratio
        return best


def _widest(cost: Cost) -> BitAssignment:
    return BitAssignment({k: c[-1] for k, c in cost.w.items()}, {k: c[-1] for k, c in cost.a.items()})


def _changed(now: BitAssignment, change: Change) -> BitAssignment:
    kind, name, bits = change
    return replace(now, **{kind: {**getattr(now, kind), name: bits}})


def _narrower(now: BitAssignment, cost: Cost) -> list[Change]:
    return [
        (kind, name, bits)
        for kind, candidates in (("weights", cost.w), ("tensors", cost.a))
        for name, all_bits in candidates.items()
        for bits in all_bits
        if bits < getattr(now, kind)[name]
    ]


def _state(now: BitAssignment, known: dict[Change, float]) -> dict:
    return {"assignment": now.to_json(), "lost": [[*change, loss] for change, loss in known.items()]}
