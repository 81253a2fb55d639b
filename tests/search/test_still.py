"""Training until it stands still: it ends when it is enough, and an interruption changes nothing."""

import pytest
import torch

from mpcompile.search.loop import Keeper, Recipe
from mpcompile.search.still import Still, train
from tests.search.nets import images, small

RECIPE = Recipe(epochs=1, batch=16, rate=5e-3, shift=0)


def trained(still, keeper=None, show=lambda *_: None):
    network = small(seed=3)
    figures = train(network, network.uniform(4, 4), images(96), RECIPE, still, seed=1, keeper=keeper, show=show)
    return network, figures


def test_it_trains_twice_as_long_each_time_until_that_gains_little():
    whole = [trained(Still(1e-6, most))[1] for most in (1, 2, 3)]
    assert [f["epochs"] for f in whole] == [1, 3, 7]
    losses = [f["held out loss"] for f in whole]
    assert losses[2] < losses[1] < losses[0]
    first = 1 - losses[1] / losses[0]
    assert trained(Still(min(0.999, first * 1.01), 9))[1] == whole[1]  # the second gained less than that
    assert trained(Still(first * 0.99, 3))[1]["epochs"] > 3


def test_a_share_of_nothing_is_one_training_on_all():
    figures = trained(Still())[1]
    assert "epochs" not in figures and "loss" in figures


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_at", [3, 8, 14, 20])
def test_an_interruption_changes_nothing(tmp_path, stop_at):
    """In the first training, in the second, in the third."""
    whole, figures = trained(Still(1e-6, 3))
    steps = 0

    def show(*_):
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Stop

    with pytest.raises(Stop):
        trained(Still(1e-6, 3), Keeper(tmp_path / "part.npz", "key", 0), show)
    again, found = trained(Still(1e-6, 3), Keeper(tmp_path / "part.npz", "key", 0))
    assert found == figures
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    assert not list(tmp_path.glob("*.between.npz"))
