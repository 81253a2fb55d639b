"""Bits for every layer by an integer program (scipy's HiGHS): the least Σ of measured losses under all budgets at once.

z[layer, w, a] ∈ {0, 1}, one of them for each layer;  y[tensors, a] = Σ_w z[layer, w, a] for each layer that reads them
u[tensor, a, formats] ∈ {0, 1}: in which formats a tensor is written, which holds all that its readers want
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpcompile.allocate.costs import FORMATS, Assignment, Choices, Costs
from mpcompile.allocate.wiring import Sensitivity, Wired
from mpcompile.errors import MissingDependency, UsageError
from mpcompile.ir.bits import BitPair

SECONDS = 60.0
"""That the solver may take; the best that it found by then is taken."""
GAP = 1e-6
FREE = float("inf")


@dataclass(frozen=True)
class Limit:
    """At most `amount` of a cost; `text` as the user asked for it."""

    costs: Costs
    amount: float
    text: str


def choose(places: Wired, choices: Choices, sensitivity: Sensitivity, limits: Sequence[Limit]) -> dict[str, BitPair]:
    """Raises UsageError naming the budget that even the cheapest choice is above, MissingDependency without scipy."""
    program = _Program(places, choices, sensitivity, limits)
    found = program.solve(program.losses, [limit.amount for limit in limits])
    if found is None:
        raise program.too_little()
    return found


class _Program:
    """Rows (coefficients by column, least, greatest) over binary columns, which are named by tuples."""

    def __init__(self, places: Wired, choices: Choices, sensitivity: Sensitivity, limits: Sequence[Limit]):
        self.places, self.choices, self.limits = places, choices, limits
        self.columns: dict[tuple, int] = {}
        self.rows: list[tuple[dict[int, float], float, float]] = []
        self.losses: dict[int, float] = {}
        self.group = {t: i for i, tensors in enumerate(places.tied()) for t in tensors}
        for k, pairs in choices.items():
            for p in pairs:
                self.losses[self.column("z", k, p)] = sensitivity.weights[k][p.weights]
            self.rows.append(({self.column("z", k, p): 1.0 for p in pairs}, 1.0, 1.0))
        self._tie(sensitivity)
        self.costs = [self._cost(limit) for limit in limits]

    def column(self, *key) -> int:
        return self.columns.setdefault(key, len(self.columns))

    def _tie(self, sensitivity: Sensitivity) -> None:
        """All readers of tensors that are tied choose the same bits of them, for which the loss is counted once."""
        for tensors in self.places.tied():
            readers = list(dict.fromkeys(k for t in tensors for k in self.places.readers(t)))
            for a in sorted({p.activations for k in readers for p in self.choices[k]}):
                y = self.column("y", self.group[tensors[0]], a)
                self.losses[y] = sum(sensitivity.tensors[t][a] for t in tensors)
                for k in readers:
                    these = {self.column("z", k, p): 1.0 for p in self.choices[k] if p.activations == a}
                    self.rows.append((these | {y: -1.0}, 0.0, 0.0))

    def _cost(self, limit: Limit) -> dict[int, float]:
        """What the budget adds up; in which formats tensors are written goes into the rows."""
        found: dict[int, float] = {}
        for k, by in limit.costs.layers.items():
            for p, cost in by.items():
                found[self.column("z", k, p)] = cost
        for tensor, by in limit.costs.packs.items():
            for a in sorted({a for a, _ in by}):
                written = {f: self.column("u", tensor, a, f) for f in FORMATS}
                found |= {u: by[a, f] for f, u in written.items()}
                y = self.column("y", self.group[tensor], a)
                self.rows.append(({**dict.fromkeys(written.values(), 1.0), y: -1.0}, 0.0, 0.0))
                for k in self.places.readers(tensor):
                    for p in self.choices[k]:
                        if p.activations == a:
                            holding = {u: -1.0 for f, u in written.items() if limit.costs.form[k][p] in f.split("+")}
                            self.rows.append(({self.column("z", k, p): 1.0, **holding}, -FREE, 0.0))
        return found

    def solve(self, objective: Mapping[int, float], amounts: Sequence[float]) -> dict[str, BitPair] | None:
        """The least Σ of `objective` under budgets of these amounts; None where there is no choice. Rows are scaled to
        their budgets, the objective to its greatest number: seconds are small beside the solver's tolerances."""
        try:
            from scipy.optimize import Bounds, LinearConstraint, milp
            from scipy.sparse import coo_array
        except ImportError:
            raise MissingDependency('choosing bits needs scipy: pip install "mpcompile[quantize]"') from None
        rows = list(self.rows)
        for limit, cost, amount in zip(self.limits, self.costs, amounts):
            scale = 1 / limit.amount
            rows.append(({j: v * scale for j, v in cost.items()}, -FREE, (amount - limit.costs.constant) * scale))
        size = len(self.columns)
        entries = np.array([(i, j, v) for i, (row, _, _) in enumerate(rows) for j, v in row.items()])
        at = entries[:, :2].astype(int).T
        matrix = coo_array((entries[:, 2], (at[0], at[1])), shape=(len(rows), size)).tocsr()
        low: Any = np.array([least for _, least, _ in rows])
        high: Any = np.array([most for *_, most in rows])
        c = np.zeros(size)
        c[list(objective)] = list(objective.values())
        found = milp(
            c / max(np.abs(c).max(), 1e-300),
            constraints=LinearConstraint(matrix, low, high),
            integrality=np.ones(size),
            bounds=Bounds(0, 1),
            options={"time_limit": SECONDS, "mip_rel_gap": GAP},
        )
        if found.x is None:
            return None
        return {k: max(pairs, key=lambda p: found.x[self.columns["z", k, p]]) for k, pairs in self.choices.items()}

    def too_little(self) -> UsageError:
        """Which budget cannot be kept, and the least that could be."""
        for limit, cost in zip(self.limits, self.costs):
            cheapest = self.solve(cost, [FREE] * len(self.limits))
            assert cheapest is not None, "without budgets every choice is one"
            least = limit.costs.of(cheapest, self.places)
            if least > limit.amount:
                return UsageError(
                    f"no choice of bits takes {limit.text} or less: the least takes {said(least, limit.costs.unit)}; fewer "
                    "bits among the candidates, or fewer layers that are kept, take less"
                )
        return UsageError(
            "no choice of bits keeps all budgets at once: " + ", ".join(limit.text for limit in self.limits)
        )


def said(cost: float, unit: str) -> str:
    """A cost for people."""
    if unit == "s":
        return f"{1e3 * cost:.4g} ms"
    if unit == "bytes":
        return f"{cost / 1024:.1f} KiB"
    return f"{cost / 1e9:.4g} GBitOps"


def bits_of_tensors(places: Wired, assignment: Assignment) -> dict[str, int]:
    """Tensor → the bits that its readers want."""
    return {t: pair.activations for k, pair in assignment.items() for t in places.layers[k].tensors}


def loss_of(sensitivity: Sensitivity, places: Wired, assignment: Assignment) -> float:
    """Σ of the measured losses: what the integer program makes least."""
    tensors = bits_of_tensors(places, assignment)
    return sum(sensitivity.weights[k][p.weights] for k, p in assignment.items()) + sum(
        sensitivity.tensors[t][a] for t, a in tensors.items()
    )
