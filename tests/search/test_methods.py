"""Every search method: the bits that it comes to keep the budget, come out the same again, and are what it says."""

import copy
import itertools

import pytest
import torch
from msgspec.structs import replace

from mpcompile.errors import UsageError
from mpcompile.search import checkpoint, config
from mpcompile.search.config import SearchOptions
from mpcompile.search.judge import Judge
from mpcompile.search.layers import BitAssignment
from mpcompile.search.loop import Keeper, Recipe, SearchRecipe, cross_entropy, retrain
from mpcompile.search.methods import METHODS, Query
from mpcompile.search.objective import BitOps, BudgetPrice, WeightPrice, land
from tests.search.nets import images, small

RECIPE = SearchRecipe(epochs=3, warmup=0, batch=16, shift=0)
OPTIONS = SearchOptions(weights=[1, 2, 4], activations=[1, 2, 4])


@pytest.fixture(scope="module")
def trained():
    network = small(seed=3)
    retrain(network, None, images(96), Recipe(epochs=6, batch=16, shift=0, rate=5e-3), seed=1)
    return network


def asked(trained, share=0.4, **more) -> Query:
    network = copy.deepcopy(trained)
    cost = BitOps(network)
    price = BudgetPrice(cost.narrowest() + share * (cost.widest() - cost.narrowest()))
    return Query(network, cost, price, images(96), RECIPE, seed=5, **more)


def found_by(name, query, options=OPTIONS):
    return METHODS[name].configured(query.network, options).search(query)


def landed(found, query) -> BitAssignment:
    if found.scores is None:
        return found.assignment
    return land(found.assignment, found.scores, query.cost, query.price.target)


def test_the_names_are_those_that_a_configuration_takes():
    assert tuple(METHODS) == config.METHOD_NAMES
    assert {name for name in METHODS if hasattr(SearchOptions(), name)} >= set(METHODS) - {"uniform"}


@pytest.mark.parametrize("name", METHODS)
def test_it_keeps_the_budget_and_comes_out_the_same_again(trained, name):
    query = asked(trained)
    found = found_by(name, query)
    assert set(found.assignment.weights) == set(query.network.weights)
    assert set(found.assignment.tensors) == set(query.network.tensors)
    bits = landed(found, query)
    query.network.assign(bits)  # they are candidates
    least = 0.6 if name != "uniform" else 0.3  # which has few networks to take one of
    assert least * query.price.target < query.cost.of(bits) <= query.price.target
    again = asked(trained)
    assert landed(found_by(name, again), again) == bits


@pytest.mark.parametrize("name", METHODS)
def test_the_next_budget_begins_where_the_last_one_ended(trained, name):
    query = asked(trained, 0.6)
    state = found_by(name, query).state
    then = asked(trained, 0.2, before=state)
    assert then.cost.of(landed(found_by(name, then), then)) <= then.price.target


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("ebs", "edmips")])
def test_a_weight_is_no_budget(trained, name):
    query = asked(trained)
    query.price = WeightPrice(0.1, query.cost.widest())
    with pytest.raises(UsageError, match=f'method "{name}" searches for budgets: objective.targets'):
        found_by(name, query)


@pytest.mark.parametrize("name", ["ebs", "edmips"])
def test_a_weight_of_nothing_asks_for_no_bits_less(trained, name):
    """The heavier the cost, the fewer bits."""
    spent = []
    for weight in (0.0, 300.0):
        query = asked(trained)
        query.price = WeightPrice(weight, query.cost.widest())
        options = replace(OPTIONS, ebs=replace(OPTIONS.ebs, strength_rate=0.3))
        spent.append(query.cost.of(found_by(name, query, options).assignment))
    assert spent[1] == asked(trained).cost.narrowest() < spent[0]


class Stop(Exception):
    pass


@pytest.mark.parametrize("name", ["ebs", "edmips", "ilp", "bsq", "supernet", "greedy", "halving"])
def test_interrupted_it_goes_on(trained, tmp_path, name):
    whole = found_by(name, asked(trained))

    def show(what, done, total, figures):
        if done >= total // 2:
            raise Stop

    with pytest.raises(Stop):
        found_by(name, asked(trained, keeper=Keeper(tmp_path / "part.npz", "key", 0), show=show))
    seen = []
    query = asked(
        trained, keeper=Keeper(tmp_path / "part.npz", "key", 0), show=lambda _, done, *more: seen.append(done)
    )
    assert found_by(name, query).assignment == whole.assignment
    assert seen and (name in ("ilp", "supernet", "halving") or seen[0] > 1)


# -- successive halving -------------------------------------------------------------------------------------------------
def test_halving_goes_on_with_those_that_train_best(trained, tmp_path):
    """By the losses that it writes down: four candidates, two of them twice as long, then the better one."""
    options = replace(OPTIONS, halving=replace(OPTIONS.halving, sources=["uniform", "random"], candidates=4))
    query = asked(trained, keeper=Keeper(tmp_path / "part.npz", "key", 0))
    found = found_by("halving", query, options)
    losses = checkpoint.load(tmp_path / "part.npz")["losses"]
    rounds = {
        epochs: {key.split(" ", 1)[1]: loss for key, loss in losses.items() if key.startswith(f"{epochs} ")}
        for epochs in (1, 2)
    }
    assert [len(r) for r in rounds.values()] == [4, 2] and len(losses) == 6
    assert set(rounds[2]) == set(sorted(rounds[1], key=rounds[1].__getitem__)[:2])
    assert str(found.assignment.to_json()) == min(rounds[2], key=rounds[2].__getitem__)
    start = trained.state_dict()
    assert all(torch.equal(tensor, start[name]) for name, tensor in query.network.state_dict().items())


# -- the integer program -----------------------------------------------------------------------------------------------
def test_losses_are_measured_with_the_statistics_of_the_judged_images(trained):
    """Of BatchNorm, whose own stay as they are; or, as asked, with those."""
    for renorm in (True, False):
        query = asked(trained)
        options = replace(OPTIONS, ilp=replace(OPTIONS.ilp, renorm=renorm))
        found = found_by("ilp", query, options).state["sensitivity"]["weights"]
        own = trained.state_dict()
        assert all(torch.equal(tensor, own[name]) for name, tensor in query.network.state_dict().items())
        query.network.assign(None)
        name, choice = next((k, c) for k, c in query.network.weights.items() if c.searched)
        query.network.train(renorm)
        lost = 0.0
        for bits, sign in ((None, -1), (1, 1)):
            choice.set(bits)
            for inputs, targets in Judge(query.network, query.samples, 96, cross_entropy, 5, RECIPE.batch).batches:
                with torch.no_grad():
                    lost += sign * float(cross_entropy(query.network(inputs), targets)) * len(inputs) / 96
        assert found[name]["1"] == pytest.approx(lost, rel=1e-4)


@pytest.mark.parametrize("kind", ["loss", "hessian", "fisher"])
def test_the_integer_program_loses_the_least_of_all_that_fits(kind):
    """Against every assignment of a network of two choices each."""
    trained = small(widths=(6, 8), bits=(1, 4), seed=3)
    query = asked(trained)
    options = replace(OPTIONS, weights=[1, 4], activations=[1, 4], ilp=replace(OPTIONS.ilp, sensitivity=kind))
    found = found_by("ilp", query, options)
    losses = found.state["sensitivity"]
    names = [(what, n) for what in ("weights", "tensors") for n in losses[what]]
    best = float("inf")
    for bits in itertools.product(*(losses[what][n] for what, n in names)):
        made = {"weights": {}, "tensors": {}}
        for (what, n), b in zip(names, bits):
            made[what][n] = int(b)
        if query.cost.of(BitAssignment(**made)) <= query.price.target:
            best = min(best, sum(losses[what][n][b] for (what, n), b in zip(names, bits)))
    assert found.figures["expected loss"] == pytest.approx(best, rel=1e-6, abs=1e-9)
    assert query.cost.of(found.assignment) <= query.price.target


def test_measured_losses_are_differences_of_the_loss(trained):
    query = asked(trained)
    options = replace(OPTIONS, ilp=replace(OPTIONS.ilp, renorm=False))
    losses = found_by("ilp", query, options).state["sensitivity"]
    network = query.network.eval()
    samples = images(96)
    inputs = samples.pixels.float() / 255

    def loss():
        with torch.no_grad():
            return float(cross_entropy(network(inputs), samples.labels))

    network.assign(None)
    base = loss()
    for what in ("weights", "tensors"):
        for name, choice in getattr(network, what).items():
            for bits in choice.candidates if choice.searched else ():
                choice.set(bits)
                assert losses[what][name][str(bits)] == pytest.approx(loss() - base, abs=1e-5)
            choice.set(None)


@pytest.mark.parametrize("kind", ["hessian", "fisher"])
def test_modelled_losses_fall_with_the_bits_and_are_of_the_size_of_measured_ones(trained, kind):
    query = asked(trained)
    options = replace(OPTIONS, ilp=replace(OPTIONS.ilp, sensitivity=kind))
    losses = found_by("ilp", query, options).state["sensitivity"]
    for what in ("weights", "tensors"):
        for name, choice in getattr(query.network, what).items():
            if choice.searched:
                one, two, four = (losses[what][name][str(b)] for b in choice.candidates)
                assert one >= two >= four >= 0
    assert sum(by["1"] for by in losses["weights"].values() if "1" in by) > 0


def test_the_trace_is_that_of_the_hessian():
    """Of a network so small that the whole Hessian of a layer's weights can be computed."""
    from mpcompile.search.judge import Judge
    from mpcompile.search.sensitivity import _of

    network = small(widths=(2,), blocks=(1,), seed=3).eval()
    samples = images(8)
    judge = Judge(network, samples, 8, cross_entropy, 0, 8)
    (inputs, targets) = judge.batches[0]
    network.assign(None)
    choice = network.weights["stage1.block1.first"]
    layer = next(k for k in network.layers() if k.name == "stage1.block1.first")
    real = choice.quantizer.real(layer.weight).detach()

    def loss(moved):
        choice.study = lambda x: real + moved.reshape(real.shape)
        try:
            return cross_entropy(network(inputs), targets)
        finally:
            choice.study = None

    hessian = torch.autograd.functional.hessian(loss, torch.zeros(real.numel()))
    off = (choice.quantizer.fake(layer.weight, 2) - real).square().sum().item()
    wanted = 0.5 * hessian.trace().item() / real.numel() * off
    found = _of(network, judge, choice, "hessian", 500, (0,), inputs, targets)[2]
    assert found == pytest.approx(max(0.0, wanted), rel=0.1, abs=1e-4)
