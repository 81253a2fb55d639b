"""The shared loop: what it learns, that a budget is met, and that an interruption at any step changes nothing."""

import pytest
import torch

from mpcompile.search import checkpoint
from mpcompile.search.loop import Batches, Keeper, Recipe, SearchRecipe, accuracy, draw, retrain, search
from mpcompile.search.method_options import EBSOptions
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.objective import BitOps, BudgetPrice
from tests.search.nets import images, small

RECIPE = SearchRecipe(epochs=6, warmup=2, batch=16, shift=0)
QUICK = {"strength_rate": 0.05}


class Stop(Exception):
    pass


def run_search(recipe=RECIPE, options=EBSOptions(**QUICK), keeper=None, stop_at=None, share=0.3):
    network = small(seed=3)
    method, cost = EBS(network, options), BitOps(network)
    price = BudgetPrice(cost.narrowest() + share * (cost.widest() - cost.narrowest()))

    def show(what, done, total, figures):
        if done == stop_at:
            raise Stop

    figures = search(network, method, cost, price, images(96), recipe, seed=5, keeper=keeper, show=show)
    return network, method, cost, price, figures


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "options", [EBSOptions(**QUICK), EBSOptions(gumbel=True, **QUICK)], ids=["deterministic", "gumbel"]
)
def test_the_search_lands_on_its_budget(options):
    network, method, cost, price, figures = run_search(SearchRecipe(epochs=30, warmup=2, batch=16), options)
    if options.gumbel:  # one draw, which strays; a loss of almost nothing asks for no more than it needs
        assert figures["expected"] < 1.35 * price.target
    else:
        assert figures["expected"] == pytest.approx(price.target, rel=0.15)
    assert cost.narrowest() < cost.of(method.readout(network)) < cost.widest()


@pytest.mark.parametrize("gumbel", [False, True])
@pytest.mark.parametrize("stop_at", [1, 6, 7, 15])
def test_resuming_changes_nothing(tmp_path, gumbel, stop_at):
    """Stopped after this many steps, in warm-up and later, with a state kept at each; then gone on with in new
    objects."""
    whole = run_search(options=EBSOptions(gumbel=gumbel, **QUICK))
    keeper = Keeper(tmp_path / "part.npz", "key", seconds=0)
    with pytest.raises(Stop):
        run_search(options=EBSOptions(gumbel=gumbel, **QUICK), keeper=keeper, stop_at=stop_at)
    resumed = run_search(
        options=EBSOptions(gumbel=gumbel, **QUICK), keeper=Keeper(tmp_path / "part.npz", "key", seconds=0)
    )
    assert same(whole[0], resumed[0]) and same(whole[1], resumed[1])
    assert whole[3] == resumed[3] and whole[4] == resumed[4]


def test_a_state_of_something_else_is_not_taken(tmp_path):
    keeper = Keeper(tmp_path / "part.npz", "key", seconds=0)
    with pytest.raises(Stop):
        run_search(keeper=keeper, stop_at=3)
    assert keeper.resume()["step"] == 2  # the step that was stopped was not kept yet
    assert Keeper(tmp_path / "part.npz", "another").resume() is None
    (tmp_path / "part.npz").write_bytes((tmp_path / "part.npz").read_bytes()[:1000])
    assert keeper.resume() is None


def test_warm_up_leaves_the_strengths_alone():
    _, method, *_ = run_search(SearchRecipe(epochs=0.01, warmup=1, batch=16))
    assert all((s == 0).all() for s in method.parameters())


def test_the_held_out_half_moves_no_weight():
    """A step on the strengths computes no gradient of the weights and changes none; running statistics may."""
    network = small(seed=3)
    before = {k: v.clone() for k, v in network.named_parameters()}
    method, cost = EBS(network), BitOps(network)
    frozen = SearchRecipe(epochs=2, warmup=0, batch=16, rate=1e-30, decay=0)
    search(network, method, cost, BudgetPrice(cost.widest()), images(96), frozen, seed=0)
    assert all(torch.allclose(before[k], v, atol=1e-20) for k, v in network.named_parameters())
    assert any((s != 0).any() for s in method.parameters())
    assert all(p.requires_grad for p in network.parameters())


def test_retraining_learns_and_resumes(tmp_path):
    train, test = images(128), images(64, seed=8)
    recipe = Recipe(epochs=8, batch=16, rate=5e-3, shift=0)
    network = small(seed=3)
    figures = retrain(network, network.uniform(4, 4), train, recipe, seed=1)
    assert accuracy(network, test) > 0.9 > 0.6 > accuracy(small(seed=4), test)
    keeper = Keeper(tmp_path / "part.npz", "key", seconds=0)

    def stop(what, done, total, figures):
        if done == 21:
            raise Stop

    other = small(seed=3)
    with pytest.raises(Stop):
        retrain(other, other.uniform(4, 4), train, recipe, seed=1, keeper=keeper, show=stop)
    again = small(seed=9)  # whatever it was before
    assert retrain(again, again.uniform(4, 4), train, recipe, seed=1, keeper=keeper) == figures
    assert same(network, again)


def test_batches_cover_an_epoch_once_in_another_order_each():
    batches = Batches(images(50), Recipe(batch=16, shift=0), 3, "train")
    assert batches.each == 4
    epochs = [torch.cat([batches[4 * e + i][0].flatten(1) for i in range(4)]) for e in range(2)]
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0].sum(1).sort()[0], epochs[1].sum(1).sort()[0])
    fresh = Batches(images(50), Recipe(batch=16, shift=0), 3, "train")
    assert torch.equal(fresh[6][0], batches[6][0])


@pytest.mark.parametrize("count, sizes", [(33, [16, 17]), (34, [16, 16, 2]), (32, [16, 16]), (5, [5]), (17, [17])])
def test_no_batch_is_a_single_image(count, sizes):
    batches = Batches(images(count), Recipe(batch=16), 0, "train")
    assert [len(batches[i][1]) for i in range(batches.each)] == sizes


def test_each_purpose_has_chance_of_its_own():
    numbers = [
        torch.rand(1, generator=draw(*what)).item() for what in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))
    ]
    assert len(set(numbers)) == 4 and torch.rand(1, generator=draw(0, "a", 1)).item() == numbers[0]


def equal_states(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(equal_states(one[k], other[k]) for k in one)
        )
    return one == other


def test_a_checkpoint_is_what_was_saved_or_none(tmp_path):
    """Whichever byte is damaged, and wherever it is cut: never an exception, and never another state."""
    state = {"key": "abc", "network": {"a": torch.arange(6.0).reshape(2, 3)}, "step": 3, "price": {"of": [None, 0.1]}}
    checkpoint.save(tmp_path / "whole.npz", state)
    data, path, none = (tmp_path / "whole.npz").read_bytes(), tmp_path / "c.npz", 0
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        found = checkpoint.load(path)
        assert found is None or equal_states(found, state), at
        none += found is None
        path.write_bytes(data[:at])
        assert checkpoint.load(path) is None, at
    assert none > len(data) / 2


def test_a_damaged_state_is_said_and_one_of_other_work_is_not(tmp_path):
    lines = []
    keeper = Keeper(tmp_path / "c.npz", "key", 0.0, lines.append)
    assert keeper.resume() is None and not lines
    keeper.keep(lambda: {"step": 7})
    assert keeper.resume() == {"key": "key", "step": 7}
    assert Keeper(tmp_path / "c.npz", "other", 0.0, lines.append).resume() is None and not lines
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:-100])
    assert keeper.resume() is None
    assert lines == [f"{tmp_path / 'c.npz'} is damaged: what it was the middle of begins anew"]


def test_checkpoints_hold_what_they_were_given(tmp_path):
    state = {"a": torch.arange(3), "b": {0: [1.5, "x", None, True], "c": torch.tensor(2.5)}, "e": {}}
    checkpoint.save(tmp_path / "c.npz", state)
    found = checkpoint.load(tmp_path / "c.npz")
    assert (
        found["b"][0] == [1.5, "x", None, True] and torch.equal(found["a"], state["a"]) and found["b"]["c"].shape == ()
    )
    assert checkpoint.load(tmp_path / "no.npz") is None
    for junk in (b"", b"PK\x03\x04junk", (tmp_path / "c.npz").read_bytes()[:-30]):
        (tmp_path / "c.npz").write_bytes(junk)
        assert checkpoint.load(tmp_path / "c.npz") is None
