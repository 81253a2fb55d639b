"""HAWQ-V3's integer programs for ResNet-18 (ICML 2021), whose constants its authors published: three costs at three
budgets. Ours gives their assignments where we know them, and in all nine what trying all 65,536 choices gives."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from mpcompile.allocate.costs import Costs
from mpcompile.allocate.program import Limit, choose
from mpcompile.allocate.wiring import Place, Reading, Sensitivity
from mpcompile.ir.bits import BitPair

GIVEN = json.loads((Path(__file__).parents[1] / "data" / "hawq_resnet18.json").read_text())
LAYERS = GIVEN["layers"]
NARROW, WIDE = BitPair(4, 4), BitPair(8, 8)
COSTS = {
    "size": {NARROW: [0.5 * n for n in GIVEN["parameters"]], WIDE: GIVEN["parameters"]},
    "bops": {NARROW: [n / 64 for n in GIVEN["macs"]], WIDE: [n / 16 for n in GIVEN["macs"]]},
    "latency": {NARROW: GIVEN["latency_4bit_ms"], WIDE: GIVEN["latency_8bit_ms"]},
}
TRACE, AT_8, AT_4 = (np.array(GIVEN[k]) for k in ("hessian_trace", "perturbation_8bit", "perturbation_4bit"))
TIED = {LAYERS.index(b): LAYERS.index(a) for a, b in GIVEN["ties"]}
"""A downsampling layer → the layer that reads the same tensor, and so has the same bits: weights here follow."""
CASES = [(cost, share) for cost in COSTS for share in (0.75, 0.5, 0.25)]


def budget(cost: str, share: float) -> float:
    four, eight = (sum(COSTS[cost][bits]) for bits in (NARROW, WIDE))
    return four + share * (eight - four)


def solved(cost: str, share: float) -> str:
    """A digit a layer."""
    places = {
        k: Place((f"{LAYERS[TIED.get(i, i)]}.input",), int(GIVEN["parameters"][i]), int(GIVEN["macs"][i]))
        for i, k in enumerate(LAYERS)
    }
    losses = {k: {4: TRACE[i] * AT_4[i], 8: TRACE[i] * AT_8[i]} for i, k in enumerate(LAYERS)}
    tensors = {t: {4: 0.0, 8: 0.0} for place in places.values() for t in place.tensors}
    found = Costs("ms", layers={k: {b: COSTS[cost][b][i] for b in (NARROW, WIDE)} for i, k in enumerate(LAYERS)})
    limit = Limit(found, budget(cost, share), f"{share:.0%} of {cost}")
    chosen = choose(Reading(places), dict.fromkeys(LAYERS, (NARROW, WIDE)), Sensitivity(losses, tensors), [limit])
    return "".join(str(chosen[k].weights) for k in LAYERS)


@pytest.fixture(scope="module")
def every() -> np.ndarray:
    """bool [65536, layers]: which have eight bits."""
    free = [i for i in range(len(LAYERS)) if i not in TIED]
    made = np.zeros((2 ** len(free), len(LAYERS)), bool)
    made[:, free] = list(product((False, True), repeat=len(free)))
    for follows, leads in TIED.items():
        made[:, follows] = made[:, leads]
    return made


@pytest.mark.parametrize("cost, share", CASES)
def test_it_finds_the_best_of_all(every, cost, share):
    four, eight = (np.array(COSTS[cost][bits]) for bits in (NARROW, WIDE))
    spent = np.where(every, eight, four).sum(1)
    loss = np.where(every, TRACE * AT_8, TRACE * AT_4).sum(1)
    loss[spent > budget(cost, share)] = np.inf
    best = every[int(loss.argmin())]
    assert solved(cost, share) == "".join("8" if wide else "4" for wide in best)


@pytest.mark.parametrize("name", GIVEN["shipped_assignments_some"])
def test_it_finds_what_the_authors_ship(name):
    cost, share = name.split()
    assert solved(cost, float(share)) == GIVEN["shipped_assignments_some"][name]


def test_the_figures_of_latency_at_a_half():
    """The objective, less what four bits lose everywhere, and the table's milliseconds."""
    wide = np.array([digit == "8" for digit in solved("latency", 0.5)])
    assert (TRACE * (AT_8 - AT_4))[wide].sum() == pytest.approx(-1.1050, abs=5e-5)
    four, eight = (np.array(COSTS["latency"][bits]) for bits in (NARROW, WIDE))
    assert np.where(wide, eight, four).sum() == pytest.approx(4.220, abs=5e-4)
