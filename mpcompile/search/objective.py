"""What the search pays for bits: the expected latency over a measured table, or BitOps, as a target or as a weight.

The expectation is that of the cost, pᵀ·LUT·q, never the cost at the expected bits. It is exact: with the strengths'
probabilities independent of one another it equals Σ over all assignments of probability · `LatencyTable.predict`, the
formats that a tensor is written in included, which follow from what all its readers want.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpcompile.errors import UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.latency.table import LatencyTable, LayerTimes
from mpcompile.search.calibrate import Calibration
from mpcompile.search.layers import BitAssignment, Network

FORMATS = "", "planes", "codes", "codes+planes"
"""In which a tensor is written; the first: as it is, where nobody reads it."""
Probs = Mapping[str, Tensor]
"""Name → probability of each candidate [B]. What is not searched may be left out."""


class Cost(ABC):
    """Of a network's bits. `unit` is what its numbers are."""

    unit: str

    def __init__(self, network: Network):
        self.reads = network.reads()
        self.w = {name: choice.candidates for name, choice in network.weights.items()}
        self.a = {name: choice.candidates for name, choice in network.tensors.items()}

    @abstractmethod
    def expected(self, weights: Probs, tensors: Probs) -> Tensor:
        """Scalar, with gradients to the probabilities."""

    @abstractmethod
    def of(self, assignment: BitAssignment) -> float:
        """The cost of one assignment."""

    def widest(self) -> float:
        """The cost with the most bits everywhere."""
        return self.of(BitAssignment({k: c[-1] for k, c in self.w.items()}, {k: c[-1] for k, c in self.a.items()}))

    def narrowest(self) -> float:
        """The cost with the fewest bits everywhere."""
        return self.of(BitAssignment({k: c[0] for k, c in self.w.items()}, {k: c[0] for k, c in self.a.items()}))

    def cheapest(self) -> BitAssignment:
        """The bits of the least cost: the fewest, where it does not say otherwise."""
        return BitAssignment({k: c[0] for k, c in self.w.items()}, {k: c[0] for k, c in self.a.items()})

    def least(self) -> float:
        """The least cost that there is."""
        return self.of(self.cheapest())

    def _probs(self, given: Probs, name: str, candidates: tuple[int, ...]) -> Tensor:
        """float64 [B]: of what is not searched, its one candidate."""
        return (
            given[name].double()
            if name in given
            else torch.ones(len(candidates), dtype=torch.float64) / len(candidates)
        )


class BitOps(Cost):
    """Σ MACs·w·a over the layers that are searched: a layer's weight bits times its input's bits."""

    unit = "BitOps"

    def __init__(self, network: Network):
        super().__init__(network)
        searched = {k for k, c in self.w.items() if len(c) > 1}
        self.macs = {k: m for k, m in network.macs().items() if k in searched}

    def expected(self, weights: Probs, tensors: Probs) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for name, macs in self.macs.items():
            tensor = self.reads[name]
            p, q = self._probs(weights, name, self.w[name]), self._probs(tensors, tensor, self.a[tensor])
            bits = torch.outer(p.new_tensor(self.w[name]), q.new_tensor(self.a[tensor]))
            total = total + macs * (p @ bits @ q)
        return total

    def of(self, assignment: BitAssignment) -> float:
        return bitops(
            self.macs, {k: BitPair(assignment.weights[k], assignment.tensors[self.reads[k]]) for k in self.macs}
        )


def bitops(macs: Mapping[str, int], bits: Mapping[str, BitPair]) -> float:
    """Σ MACs·w·a; bits: layer → (w, a)."""
    return float(sum(m * bits[k][0] * bits[k][1] for k, m in macs.items()))


def normalised_bits(macs: Mapping[str, int], bits: Mapping[str, BitPair]) -> float:
    """√(Σ MACs·w·a / Σ MACs): EdMIPS's "bit", the one uniform bitwidth with as many BitOps."""
    return math.sqrt(bitops(macs, bits) / sum(macs.values()))


class Latency(Cost):
    """Expected seconds of the whole network, by a latency table whose layers and quantizers bear the network's names.

    Raises UsageError where the table lacks a layer, a tensor or bits that are searched.
    """

    unit = "s"

    def __init__(self, network: Network, table: LatencyTable, calibration: Calibration = Calibration()):
        super().__init__(network)
        self.table, self.calibration = table, calibration
        self._check()
        self.constant = table.beside + sum(row.base for row in table.layers.values())
        self.layer_costs: list[tuple[str, str, Tensor]] = []
        """(layer, tensor, [W, A]): pᵀ·M·q seconds."""
        self.tensor_costs: list[tuple[str, Tensor]] = []
        """(tensor, [A]): v·q seconds."""
        self.packs: list[tuple[str, dict[str, Tensor]]] = []
        """(tensor, formats → [A]): seconds of writing it in these formats."""
        for row in table.layers.values():
            self._row(row)
        self.readers = {t: [k for k, c in table.contractions.items() if c.quantizers == (t,)] for t in self.a}
        self.wants_planes = {
            k: self._matrix(k, lambda w, a, k=k: float(table.format(k, w, a) == "planes")) for k in self.reads
        }

    def expected(self, weights: Probs, tensors: Probs) -> Tensor:
        p = {k: self._probs(weights, k, c) for k, c in self.w.items()}
        q = {t: self._probs(tensors, t, c) for t, c in self.a.items()}
        total = torch.tensor(self.constant, dtype=torch.float64)
        for layer, tensor, matrix in self.layer_costs:
            total = total + p[layer] @ matrix @ q[tensor]
        for tensor, vector in self.tensor_costs:
            total = total + vector @ q[tensor]
        for tensor, of_formats in self.packs:
            for formats, chance in self._formats(tensor, p).items():
                total = total + (chance * of_formats[formats]) @ q[tensor]
        return self.calibration.slope * total + self.calibration.offset

    def of(self, assignment: BitAssignment) -> float:
        return self.calibration(self.raw(assignment))

    def cheapest(self) -> BitAssignment:
        """Tensor by tensor, each with the layers that read it: the cost is a sum of what each such group takes. Of equal
        ones the one with the fewest bits."""
        found = super().cheapest()
        for tensor, candidates in self.a.items():
            readers = [k for k, t in self.reads.items() if t == tensor]
            forms = FORMATS[1:] if readers else FORMATS[:1]
            groups = [self._group(tensor, a, readers, f) for a in range(len(candidates)) for f in forms]
            best = min(range(len(groups)), key=lambda i: groups[i][0])
            bits = candidates[best // len(forms)]
            found = BitAssignment({**found.weights, **groups[best][1]}, {**found.tensors, tensor: bits})
        return found

    def _group(self, tensor: str, a: int, readers: list[str], formats: str) -> tuple[float, dict[str, int]]:
        """Seconds of a tensor at its candidate `a`, and of its readers where they want these formats, each at those bits
        that take least: layer → bits. ∞ where they cannot want these."""
        seconds = sum(float(v[a]) for t, v in self.tensor_costs if t == tensor)
        seconds += sum(float(by[formats][a]) for t, by in self.packs if t == tensor)
        rows: dict[str, dict[str, Tensor]] = {}
        for k in readers:
            costs = torch.zeros(len(self.w[k]), dtype=torch.float64)
            for name, _, matrix in self.layer_costs:
                costs = costs + matrix[:, a] if name == k else costs
            planes = self.wants_planes[k][:, a] > 0.5
            rows[k] = {"planes": costs.where(planes, math.inf), "codes": costs.where(~planes, math.inf)}
        taken = {k: min(formats.split("+"), key=lambda f, k=k: float(rows[k][f].min())) for k in readers if formats}
        for form in formats.split("+") if readers else ():
            if form not in taken.values():  # whoever loses the least by it has to want it
                other = {k: float(rows[k][form].min() - rows[k][taken[k]].min()) for k in readers}
                if len(readers) < 2:
                    return math.inf, {}
                taken[min(other, key=other.__getitem__)] = form
        seconds += sum(float(rows[k][form].min()) for k, form in taken.items())
        return seconds, {k: self.w[k][int(rows[k][form].argmin())] for k, form in taken.items()}

    def raw(self, assignment: BitAssignment) -> float:
        """What the table itself predicts."""
        return self.table.predict(self.bits(assignment))

    def bits(self, assignment: BitAssignment) -> dict[str, BitPair]:
        """As the latency table wants it: layer → its bits."""
        return {k: BitPair(assignment.weights[k], assignment.tensors[t]) for k, t in self.reads.items()}

    # -- from the table to matrices ----------------------------------------------------------------
    def _check(self) -> None:
        lacking = [k for k in self.reads if k not in self.table.contractions]
        if lacking:
            raise UsageError(
                f"the latency table of {self.table.model} has no layer {lacking[0]}: it was measured on another network"
            )
        for name, tensor in self.reads.items():
            found = self.table.contractions[name].quantizers
            if found != (tensor,):
                raise UsageError(
                    f"in the latency table of {self.table.model} layer {name} reads {', '.join(found)}, "
                    f"in the network {tensor}"
                )

    def _row(self, row: LayerTimes) -> None:
        counted: set[str] = set()
        for name in row.reads:
            contraction, tensor = self.table.contractions[name], self.reads[name]
            first = tensor not in counted

            def seconds(w: int, a: int) -> float:
                at_own = self.table.latency(name, contraction.w, a)
                moved = at_own - row.base if first else 0.0
                return self.table.latency(name, w, a) - at_own + moved

            self.layer_costs.append((name, tensor, self._matrix(name, seconds)))
            counted.add(tensor)
        for tensor, cells in row.views.items():
            if tensor not in counted and tensor not in row.packs and tensor in self.a:
                self.tensor_costs.append(
                    (tensor, self._vector(tensor, lambda a: self._cell(cells, tensor, a) - row.base))
                )
        for tensor, cells in row.packs.items():
            if tensor in self.a:
                own = self.table.quantizers[tensor][1]

                def written(a: int, formats: str) -> float:
                    cell = self._cell(cells, tensor, a)
                    return cell.get(formats or own, max(cell.values())) - row.base

                self.packs.append(
                    (
                        tensor,
                        {f: self._vector(tensor, lambda a, f=f: written(a, f)) for f in FORMATS},
                    )
                )

    def _matrix(self, name: str, seconds) -> Tensor:
        """float64 [W, A] of seconds(w, a) over the candidates of a layer's weights and of its input."""
        return torch.tensor(
            [[seconds(w, a) for a in self.a[self.reads[name]]] for w in self.w[name]], dtype=torch.float64
        )

    def _vector(self, tensor: str, seconds) -> Tensor:
        return torch.tensor([seconds(a) for a in self.a[tensor]], dtype=torch.float64)

    @staticmethod
    def _cell(cells, tensor: str, a: int):
        if a not in cells:
            raise UsageError(
                f"the latency table has no A{a} of quantizer {tensor}: it has "
                + ", ".join(f"A{b}" for b in sorted(cells))
            )
        return cells[a]

    def _formats(self, tensor: str, p: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """formats → probability [A] at each bitwidth of the tensor that its readers want exactly these."""
        if not self.readers[tensor]:
            return {"": torch.ones(len(self.a[tensor]), dtype=torch.float64)}
        all_planes = all_codes = torch.ones(len(self.a[tensor]), dtype=torch.float64)
        for reader in self.readers[tensor]:
            planes = p[reader] @ self.wants_planes[reader]
            all_planes, all_codes = all_planes * planes, all_codes * (1 - planes)
        return {"planes": all_planes, "codes": all_codes, "codes+planes": 1 - all_planes - all_codes}


# -- what a search is asked to pay -------------------------------------------------------------------------------------
@dataclass
class WeightPrice:
    """weight · cost/unit_cost: the user's own exchange rate between loss and cost."""

    weight: float
    unit_cost: float

    def term(self, cost: Tensor) -> Tensor:
        """What is added to the loss."""
        return self.weight * cost / self.unit_cost


@dataclass
class BudgetPrice:
    """ "At most `target`"; how it is kept is the method's matter."""

    target: float


Price = WeightPrice | BudgetPrice


def land(
    assignment: BitAssignment, log_probs: Mapping[str, Mapping[str, Tensor]], cost: Cost, target: float
) -> BitAssignment:
    """The readout, taken below `target` where it is above, and as near to it as it goes.

    Again and again the one change of bits is made that loses the least log probability for what it saves. What fits
    after all is changed back to what is likelier; then what is left is spent: more bits where they lose the least log
    probability for what they cost, and those that cost nothing before all others. Raises UsageError where even the
    fewest bits cost more.
    """
    if cost.least() > target:
        raise UsageError(
            f"no choice of bits costs {target:.4g} {cost.unit} or less: the fewest bits cost {cost.least():.4g}"
        )
    now, spent = assignment, cost.of(assignment)
    while spent > target:
        found = [c for c in _changes(now, log_probs, cost) if c.after < spent]
        if not found:  # a local minimum above the target: all the way down
            now = cost.cheapest()
            spent = cost.of(now)
        else:
            best = min(found, key=lambda c: c.gain / (c.after - spent))
            now, spent = best.then, best.after
    while found := [c for c in _changes(now, log_probs, cost) if c.gain > 0 and c.after <= target]:
        best = max(found, key=lambda c: c.gain)
        now, spent = best.then, best.after
    while found := [c for c in _changes(now, log_probs, cost) if c.raised and c.after <= target]:
        best = max(found, key=lambda c: (c.after <= spent, c.gain / max(c.after - spent, 1e-9 * target)))
        now, spent = best.then, best.after
    return now


@dataclass(frozen=True)
class _Change:
    """Of one choice's bits: the log probability that it gains, whether it is to more bits, what is then, its cost."""

    gain: float
    raised: bool
    then: BitAssignment
    after: float


def _changes(now: BitAssignment, log_probs: Mapping[str, Mapping[str, Tensor]], cost: Cost) -> Iterator[_Change]:
    for kind, candidates in (("weights", cost.w), ("tensors", cost.a)):
        bits = getattr(now, kind)
        for name, chances in log_probs[kind].items():
            at = chances[candidates[name].index(bits[name])].item()
            for other, chance in zip(candidates[name], chances.tolist()):
                if other != bits[name]:
                    changed = replace(now, **{kind: {**bits, name: other}})
                    yield _Change(chance - at, other > bits[name], changed, cost.of(changed))
