"""Bits by an integer program over what each choice loses by itself: no training, and the optimum of that sum.

    min Σ_layers Ω(layer, w) + Σ_tensors Ω(tensor, a)   under the measured latency, or BitOps

as HAWQ-V2 and V3 (NeurIPS 2020, ICML 2021) choose among 4 and 8 bits; Ω is measured or modelled, see sensitivity.py. Layers
that read one tensor choose its bits together, and the formats that a tensor is stored in count as the table has them. The
program is the one of `mpcompile quantize`, solved by HiGHS through scipy.
"""

from __future__ import annotations

from mpcompile.allocate import costs
from mpcompile.allocate.program import Limit, choose, loss_of
from mpcompile.allocate.wiring import Place, Reading, Sensitivity
from mpcompile.ir.bits import BitPair
from mpcompile.search.config import SearchOptions
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitAssignment, Network
from mpcompile.search.method_options import ILPOptions
from mpcompile.search.methods.base import Found, Method, Query
from mpcompile.search.objective import BitOps, Cost, Latency
from mpcompile.search.sensitivity import measure


class ILP(Method):
    """Loses the least, by the sum of single losses, of all that keeps the budget."""

    def __init__(self, network: Network, options: ILPOptions = ILPOptions()):
        self.options = options

    @classmethod
    def configured(cls, network: Network, search: SearchOptions) -> ILP:
        return cls(network, search.ilp)

    def search(self, query: Query) -> Found:
        target, network = query.target("ilp"), query.network
        sensitivity = self._sensitivity(query)
        wiring, choices = wiring_of(network), choices_of(network)
        cost, amount = costs_of(query.cost, wiring, choices, target)
        chosen = choose(wiring, choices, sensitivity, [Limit(cost, amount, f"{target:.4g} {query.cost.unit}")])
        assignment = BitAssignment(
            {k: pair.weights for k, pair in chosen.items()},
            {t: chosen[wiring.readers(t)[0]].activations for t in network.tensors if wiring.readers(t)}
            | {t: c.candidates[-1] for t, c in network.tensors.items() if not wiring.readers(t)},
        )
        losses = {"weights": _text(sensitivity.weights), "tensors": _text(sensitivity.tensors)}
        figures = {"expected loss": loss_of(sensitivity, wiring, chosen), "argmax": query.cost.of(assignment)}
        return Found(assignment, None, {"sensitivity": losses}, figures)

    def _sensitivity(self, query: Query) -> Sensitivity:
        """Of the search before, where there was one: it does not depend on the budget."""
        known = (query.before or {}).get("sensitivity")
        if known is None and query.keeper and (state := query.keeper.resume()):
            known = state["sensitivity"]
        o = self.options
        judge = Judge(
            query.network, query.samples, o.samples, query.loss, query.seed, query.recipe.batch,
            statistics_of_the_batch=o.renorm,
        )  # fmt: skip

        def keep(found: dict) -> None:
            if query.keeper:
                query.keeper.keep(lambda: {"sensitivity": {what: _text(part) for what, part in found.items()}})

        return measure(
            query.network, judge, o.sensitivity, o.probes, query.seed,
            lambda done, total: query.show("sensitivity", done, total, {}),
            {what: _bits(part) for what, part in known.items()} if known else None, keep,
        )  # fmt: skip


def wiring_of(network: Network) -> Reading:
    macs, reads = network.macs(), network.reads()
    return Reading({k.name: Place((reads[k.name],), k.weight.numel(), macs[k.name]) for k in network.layers()})


def choices_of(network: Network) -> dict[str, tuple[BitPair, ...]]:
    """Layer → all its pairs."""
    weights, tensors, reads = network.weights, network.tensors, network.reads()
    return {
        k: tuple(BitPair(w, a) for w in choice.candidates for a in tensors[reads[k]].candidates)
        for k, choice in weights.items()
    }


def costs_of(cost: Cost, wiring: Reading, choices: costs.Choices, target: float) -> tuple[costs.Costs, float]:
    """A search's cost as sums over choices, and the target in their unit."""
    if isinstance(cost, Latency):
        tensors = {t: t for layer in wiring.layers.values() for t in layer.tensors}
        found = costs.latency(wiring, choices, cost.table, tensors)
        return found, (target - cost.calibration.offset) / cost.calibration.slope
    assert isinstance(cost, BitOps)
    found = costs.bitops(wiring, choices)
    found.layers = {k: by for k, by in found.layers.items() if k in cost.macs}
    return found, target


def _text(found: dict[str, dict[int, float]]) -> dict[str, dict[str, float]]:
    return {name: {str(bits): loss for bits, loss in by.items()} for name, by in found.items()}


def _bits(found: dict[str, dict[str, float]]) -> dict[str, dict[int, float]]:
    return {name: {int(bits): loss for bits, loss in by.items()} for name, by in found.items()}
