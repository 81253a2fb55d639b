"""Bits for every layer by an integer program (scipy's HiGHS): the least Σ of measured losses under all budgets at once.

z[layer, w, a] ∈ {0, 1}, one of them for each layer;  y[tensors, a] = Σ_w z[layer, w, a] for each layer that reads them
u[tensor, a, formats] ∈ {0, 1}: in which formats a tensor is written, which holds all that its readers want
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpcompile.errors import MissingDependency, UsageError
from mpcompile.ir.bits import BitPair
from mpcompile.quantize.costs import FORMATS, Assignment, Choices, Costs
from mpcompile.quantize.places import Places
from mpcompile.quantize.sensitivity import Sensitivity

SECONDS = 60.0
"""That the solver may take; what it found by then is taken."""
GAP = 1e-6


@dataclass(frozen=True)
class Limit:
    """At most `amount` of a cost; `text` as the user asked for it."""

    costs: Costs
    amount: float
    text: str


def choose(places: Places, choices: Choices, sensitivity: Sensitivity, limits: Sequence[Limit]) -> dict[str, BitPair]:
    """Raises UsageError naming the budget that even the cheapest choice is above, MissingDependency without scipy."""
    try:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array
    except ImportError:
        raise MissingDependency('choosing bits needs scipy: pip install "mpcompile[quantize]"') from None

    columns: dict[tuple, int] = {}

    def column(*key) -> int:
        return columns.setdefault(key, len(columns))

    groups = {t: i for i, tensors in enumerate(places.tied()) for t in tensors}
    for k, pairs in choices.items():
        for p in pairs:
            column("z", k, p)
    objective = [0.0] * len(columns)
    for k, pairs in choices.items():
        for p in pairs:
            objective[column("z", k, p)] += sensitivity.weights[k][p.weights]
    rows: list[tuple[dict[int, float], float, float]] = []
    for k, pairs in choices.items():
        rows.append(({column("z", k, p): 1.0 for p in pairs}, 1.0, 1.0))
    readers = {}
    for k in choices:
        readers.setdefault(groups[places.layers[k].tensors[0]], []).append(k)
    for group, names in readers.items():
        tensors = [t for t, g in groups.items() if g == group]
        for a in sorted({p.activations for k in names for p in choices[k]}):
            y = column("y", group, a)
            objective += [0.0] * (len(columns) - len(objective))
            objective[y] += sum(sensitivity.tensors[t].get(a, np.inf) for t in tensors)
            for k in names:
                read = {column("z", k, p): 1.0 for p in choices[k] if p.activations == a}
                rows.append((read | {y: -1.0}, 0.0, 0.0))
    cost_rows = [_cost_row(limit, places, choices, groups, column, rows) for limit in limits]
    objective += [0.0] * (len(columns) - len(objective))
    names = list(columns)

    def solve(amounts: Sequence[float], c: np.ndarray):
        every = rows + [(row, -np.inf, amount) for row, amount in zip(cost_rows, amounts)]
        entries = [(i, j, v) for i, (row, _, _) in enumerate(every) for j, v in row.items()]
        at = np.array([(i, j) for i, j, _ in entries]).T
        matrix = coo_array(([v for *_, v in entries], (at[0], at[1])), shape=(len(every), len(names))).tocsr()
        bounds = LinearConstraint(matrix, [low for _, low, _ in every], [high for *_, high in every])
        options = {"time_limit": SECONDS, "mip_rel_gap": GAP}
        return milp(c, constraints=bounds, integrality=np.ones(len(names)), bounds=Bounds(0, 1), options=options)

    def read(x: np.ndarray) -> dict[str, BitPair]:
        return {k: max(pairs, key=lambda p: x[columns["z", k, p]]) for k, pairs in choices.items()}

    # Rows are scaled to their budgets: seconds are small numbers beside the solver's tolerances.
    c = np.array(objective)
    c = c / max(float(c.max()), 1e-30)
    amounts = [(limit.amount - limit.costs.constant) / limit.amount for limit in limits]
    found = solve(amounts, c)
    if found.x is None:
        raise _too_little(places, limits, cost_rows, names, solve, read)
    return read(found.x)


def _cost_row(limit: Limit, places: Places, choices: Choices, groups, column, rows) -> dict[int, float]:
    """What the budget adds up, over its amount; what formats a tensor is written in goes into `rows`."""
    row: dict[int, float] = {}
    for k, by in limit.costs.layers.items():
        for p, cost in by.items():
            row[column("z", k, p)] = cost / limit.amount
    for tensor, by in limit.costs.packs.items():
        for a in sorted({a for a, _ in by}):
            written = {f: column("u", tensor, a, f) for f in FORMATS}
            for f, u in written.items():
                row[u] = by[a, f] / limit.amount
            rows.append(({**dict.fromkeys(written.values(), 1.0), column("y", groups[tensor], a): -1.0}, 0.0, 0.0))
            for k in places.readers(tensor):
                for p in choices[k]:
                    if p.activations == a:
                        holding = {u: -1.0 for f, u in written.items() if limit.costs.form[k][p] in f.split("+")}
                        rows.append(({column("z", k, p): 1.0, **holding}, -np.inf, 0.0))
    return row


def _too_little(places, limits: Sequence[Limit], cost_rows, names, solve, read) -> UsageError:
    """Which budget cannot be kept, and the least that would."""
    for limit, row in zip(limits, cost_rows):
        c = np.zeros(len(names))
        for j, v in row.items():
            c[j] = v
        found = solve([np.inf] * len(limits), c)
        least = limit.costs.of(read(found.x), places)
        if least > limit.amount:
            return UsageError(
                f"no choice of bits takes {limit.text} or less: the least takes {said(least, limit.costs.unit)}; fewer bits among "
                "the candidates, or fewer layers that are kept, take less"
            )
    return UsageError("no choice of bits keeps all budgets at once: " + ", ".join(limit.text for limit in limits))


def said(cost: float, unit: str) -> str:
    """A cost for people."""
    if unit == "s":
        return f"{1e3 * cost:.4g} ms"
    if unit == "bytes":
        return f"{cost / 1024:.1f} KiB"
    return f"{cost / 1e9:.4g} GBitOps"


def bits_of_tensors(places: Places, assignment: Assignment) -> dict[str, int]:
    found: dict[str, int] = {}
    for k, pair in assignment.items():
        for t in places.layers[k].tensors:
            found[t] = pair.activations
    return found


def loss_of(sensitivity: Sensitivity, places: Places, assignment: Mapping[str, BitPair]) -> float:
    """Σ of the measured losses of an assignment: what the integer program makes least."""
    tensors = bits_of_tensors(places, assignment)
    return sum(sensitivity.weights[k][p.weights] for k, p in assignment.items()) + sum(
        sensitivity.tensors[t][a] for t, a in tensors.items()
    )
