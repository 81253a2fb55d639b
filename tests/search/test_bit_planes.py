"""BSQ's bit planes: what they stand for, what pruning leaves of it, and how bits fall in a search."""

import itertools

import pytest
import torch

from mpcompile.search.bit_planes import BitPlanes, split
from mpcompile.search.loop import SearchRecipe
from mpcompile.search.method_options import BSQOptions
from mpcompile.search.methods.base import Query
from mpcompile.search.methods.bsq import BSQ
from mpcompile.search.objective import BitOps, BudgetPrice
from tests.search.nets import images, small


def weights(seed=0, size=(4, 3, 3, 3)):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 3, 7])
def test_planes_are_the_rounded_weights(count):
    w, top = weights(), (1 << count) - 1
    made = BitPlanes(w, count)
    wanted = w.abs().amax() * (w / w.abs().amax() * top).round() / top
    torch.testing.assert_close(made(), wanted)
    assert set(made.planes.unique().tolist()) <= {0.0, 1.0} and made.planes.shape == (count, 2, *w.shape)
    assert not (made.planes[:, 0] * made.planes[:, 1]).any()  # no weight is on both sides


def test_gradients_pass_straight_through_the_rounding():
    """dW/dp_b = scale·2^b/(2^n − 1), dW/dn_b the same below 0, dW/dscale = R(v)."""
    made = BitPlanes(weights(), 3)
    with torch.no_grad():
        made.planes.add_(0.3 * torch.rand(made.planes.shape, generator=torch.Generator().manual_seed(1)))
    g = weights(2)
    (made() * g).sum().backward()
    for b in range(3):
        part = float(made.scale.detach()) * 2**b / 7 * g
        torch.testing.assert_close(made.planes.grad[b, 0], part)
        torch.testing.assert_close(made.planes.grad[b, 1], -part)
    torch.testing.assert_close(made.scale.grad, (made().detach() / made.scale.detach() * g).sum())


def test_the_lasso_by_hand():
    made = BitPlanes(torch.tensor([3.0, -1.0]), 2)  # codes 3 and −1: planes (1, −1) and (1, 0)
    assert made.lasso().item() == pytest.approx(2 * 2 * (2**0.5 + 1.0), abs=1e-6)


@pytest.mark.parametrize(
    "codes, count, left",
    [
        ([5, -3, 1], 3, 3),  # all of them are used
        ([5, -3, 1], 6, 3),  # the top ones are empty
        ([4, -12, 8], 4, 2),  # the bottom ones are: 1, −3, 2
        ([0, 0, 0], 4, 1),  # one stays
    ],
)
def test_pruning_drops_empty_planes_and_leaves_the_weights(codes, count, left):
    made = BitPlanes(torch.ones(3), count)
    made.planes = torch.nn.Parameter(split(torch.tensor(codes), count))
    made.scale.data.fill_(0.7)
    before = made().detach()
    made.prune()
    assert made.count == left
    torch.testing.assert_close(made().detach(), before)


def test_a_code_that_outgrew_its_planes_gets_one_more():
    made = BitPlanes(torch.tensor([1.0, -0.5]), 2)
    made.planes.data[:, 0, 0] = torch.tensor([1.0, 2.0])  # 1 + 2·2 = 5 of 3
    real = made.real().detach() * made.scale.detach()
    made.prune()
    assert made.count == 3
    torch.testing.assert_close(made().detach()[0], real[0], atol=0.5 * float(made.scale) / 7 + 1e-6, rtol=0)


def test_the_lasso_takes_bits_until_the_budget_is_kept():
    """Of the planes themselves, before anything is landed; none below it once it is kept."""
    network = small(seed=3, bits=(1, 2, 3, 4, 6, 8))
    cost = BitOps(network)
    target = cost.of(network.uniform(4, 4))
    recipe = SearchRecipe(epochs=20, warmup=0, batch=16, shift=0)
    seen = []
    query = Query(
        network,
        cost,
        BudgetPrice(target),
        images(96),
        recipe,
        seed=1,
        show=lambda *event: seen.append(event[3]["expected"]),
    )
    found = BSQ(network, BSQOptions(strength=1.0)).search(query)
    assert seen[0] > target >= seen[-1] == cost.of(found.assignment)
    assert all(a >= b for a, b in itertools.pairwise(seen) if a > target)
    assert {found.assignment.tensors[t] for t, c in network.tensors.items() if c.searched} == {4}
    assert all(choice.study is None for choice in network.choices()) and all(
        p.requires_grad for p in network.parameters()
    )
