"""That a search's argmax lands on the budget by itself, before anything is landed: on several budgets, seeds, tables and
lengths of the search."""

import pytest
import torch

from mpcompile.api.modelled_workbench import modelled_table
from mpcompile.ir.bits import BitCandidates
from mpcompile.search.export import export
from mpcompile.search.loop import SearchRecipe
from mpcompile.search.method_options import EBSOptions
from mpcompile.search.methods.base import Query
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.methods.edmips import EdMIPS
from mpcompile.search.methods.mixtures import root
from mpcompile.search.objective import BitOps, BudgetPrice, Latency
from mpcompile.targets import load_target
from tests.search.nets import images, small

BITS = (1, 2, 3, 4, 8)
NEAR = 0.03
METHODS = {"ebs": EBS, "gumbel": lambda network: EBS(network, EBSOptions(gumbel=True)), "edmips": EdMIPS}


def network(seed=0):
    return small(widths=(8, 16, 32), blocks=(1, 1, 1), bits=BITS, side=16, seed=seed)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Of two boards, by their cost models."""
    made = network()
    made.assign(made.uniform(2, 2))
    path = tmp_path_factory.mktemp("tables") / "network.onnx"
    export(made, path)
    return {name: modelled_table(path, load_target(name), BitCandidates.of(BITS, BITS)) for name in ("zen4", "rpi4b")}


def off_target(tables, board, method, seed, budget, epochs):
    """Of the argmax: its cost over the target, less 1."""
    searched = network(seed)
    cost = Latency(searched, tables[board]) if board in tables else BitOps(searched)
    narrow, wide = (cost.of(searched.uniform(*pair)) for pair in ((1, 2), (2, 2)))
    target = {"w1a2": narrow, "between": (narrow + wide) / 2, "w2a2": wide}[budget]
    recipe = SearchRecipe(epochs=epochs, warmup=0.5, batch=16, shift=0)
    query = Query(searched, cost, BudgetPrice(target), images(64, 16), recipe, seed=seed)
    found = METHODS[method](searched).search(query)
    assert found.figures["argmax"] == cost.of(found.assignment)
    return found.figures["argmax"] / target - 1


@pytest.mark.parametrize("budget", ["w1a2", "between", "w2a2"])
@pytest.mark.parametrize("board, method", [("zen4", "ebs"), ("rpi4b", "edmips"), ("bitops", "gumbel")])
def test_it_lands_on_the_target(tables, board, method, budget):
    assert abs(off_target(tables, board, method, 0, budget, 3)) <= NEAR


@pytest.mark.parametrize("epochs", [3, 12])
@pytest.mark.parametrize("budget", ["w1a2", "between", "w2a2"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("board", ["zen4", "rpi4b"])
@pytest.mark.parametrize("method", METHODS)
def test_however_long_it_searches(tables, board, method, seed, budget, epochs):
    assert abs(off_target(tables, board, method, seed, budget, epochs)) <= NEAR


def test_the_mixture_is_on_the_target_in_every_step(tables):
    """As soon as the search begins, whatever the strengths are, as long as not all is settled."""
    searched = network()
    cost = Latency(searched, tables["rpi4b"])
    method, target = EBS(searched), cost.of(searched.uniform(2, 2))
    method.aim(cost, target)
    draw = torch.Generator().manual_seed(0)
    for progress in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        with torch.no_grad():
            for strength in method.parameters():
                strength.add_(torch.randn(strength.shape, generator=draw))
        method.mix(searched, progress, draw, learn=True)
        assert method.cost(cost).item() == pytest.approx(target, rel=2e-3)
    assert int((method.settled >= 0).sum()) == int(len(method.choices) * 0.4 / 0.475)
    assert method.open
    method.mix(searched, 0.99, draw, learn=True)
    assert not method.open and method.cost(cost).item() == pytest.approx(cost.of(method.readout(searched)))


@pytest.mark.parametrize("start", [0.0, 3.0, -40.0])
@pytest.mark.parametrize("at", [-7.5, 0.0, 0.3, 1e3])
def test_a_root_is_found_from_anywhere(start, at):
    assert root(lambda x: 0.1 * (at - x) / (1 + abs(at - x)), start, 0.5) == pytest.approx(at, abs=0.01)


def test_where_there_is_no_root_it_goes_far_out():
    assert root(lambda x: 1 + 2.0**-x if x < 1000 else 1.0, 0.0, 0.5) > 30
    assert root(lambda x: -2.0 + (-1.0 if x > 0 else x / 1000), 0.0, 0.5) < 0
