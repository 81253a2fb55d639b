"""Costs, prices and the landing on a budget, by hand: knobs that are nothing but their candidates, costs that are sums."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from mpcompile.errors import UsageError
from mpcompile.latency import table as tables
from mpcompile.search import objective
from mpcompile.search.calibrate import Calibration
from mpcompile.search.layers import BitAssignment


def network(weights, tensors, reads, macs=None):
    """What a cost asks a network for. weights, tensors: name → candidates."""

    def knobs(of):
        return {k: SimpleNamespace(candidates=c) for k, c in of.items()}

    return SimpleNamespace(weights=knobs(weights), tensors=knobs(tensors), reads=lambda: reads, macs=lambda: macs or {})


def probs(**chances):
    return {k: torch.tensor(p, dtype=torch.float64) for k, p in chances.items()}


# -- expected costs ----------------------------------------------------------------------------------------------------
PAIR = network(
    {"first": (8,), "c": (1, 2, 4), "d": (1, 4)},
    {"image": (8,), "t": (2, 4)},
    {"first": "image", "c": "t", "d": "t"},
    {"first": 1000, "c": 10, "d": 100},
)


def test_bitops_are_of_the_layers_that_are_searched():
    cost = objective.BitOps(PAIR)
    chosen = BitAssignment({"first": 8, "c": 1, "d": 4}, {"image": 8, "t": 2})
    assert cost.of(chosen) == 10 * 1 * 2 + 100 * 4 * 2
    assert cost.narrowest() == 110 * 1 * 2 and cost.widest() == 110 * 4 * 4
    certain = cost.expected(probs(c=[1, 0, 0], d=[0, 1]), probs(t=[1, 0]))
    assert certain.item() == 820 and certain.dtype == torch.float64
    mixed = cost.expected(probs(c=[0.5, 0.5, 0], d=[0.25, 0.75]), probs(t=[0.5, 0.5]))
    assert mixed.item() == pytest.approx(10 * 1.5 * 3 + 100 * 3.25 * 3)


def test_mean_bits_are_of_macs():
    assert objective.normalised_bits({"a": 3, "b": 1}, {"a": (1, 1), "b": (4, 4)}) == pytest.approx((19 / 4) ** 0.5)


def by_hand() -> tables.LatencyTable:
    """`c` and `d`, in layers of their own, read t, which the first layer writes; a float operator looks at t, and one
    that writes u, which nothing reads, as well as t."""
    return tables.LatencyTable(
        "by hand",
        {},
        {"w": [1, 2], "a": [2, 4]},
        {
            "first": tables.Contraction("L0", 8, 8, ("image",)),
            "c": tables.Contraction("L1", 2, 2, ("t",)),
            "d": tables.Contraction("L1", 2, 2, ("t",)),
            "e": tables.Contraction("L2", 2, 2, ("t",)),
        },
        {"image": (8, "codes"), "t": (2, "planes"), "u": (2, "codes"), "unknown": (2, "codes")},
        {
            "L0": tables.LayerTimes(
                100.0,
                {"first": {(8, 8): {"codes": 100.0}}},
                packs={
                    "t": {2: {"planes": 100.0, "codes": 101.0, "codes+planes": 104.0}, 4: {"codes": 110.0}},
                    "unknown": {2: {"codes": 100.0}},
                },
            ),
            "L1": tables.LayerTimes(
                200.0,
                {
                    "c": {
                        (1, 2): {"planes": 150.0, "codes": 190.0},
                        (2, 2): {"planes": 200.0},
                        (1, 4): {"codes": 220.0},
                        (2, 4): {"codes": 240.0},
                    },
                    "d": {
                        (1, 2): {"planes": 195.0},
                        (2, 2): {"codes": 200.0},
                        (1, 4): {"planes": 235.0},
                        (2, 4): {"codes": 240.0},
                    },
                },
                views={"t": {2: 200.0, 4: 900.0}},
            ),
            "L2": tables.LayerTimes(
                300.0,
                {
                    "e": {
                        (1, 2): {"planes": 290.0},
                        (2, 2): {"planes": 300.0},
                        (1, 4): {"planes": 301.0},
                        (2, 4): {"codes": 305.0},
                    }
                },
                packs={"u": {2: {"codes": 300.0, "planes": 303.0}, 4: {"codes": 312.0, "planes": 350.0}}},
                views={"unknown": {2: 300.0}},
            ),
            "L3": tables.LayerTimes(
                400.0,
                packs={"u": {2: {"": 400.0}, 4: {"": 420.0}}},
                views={"t": {2: 400.0, 4: 430.0}, "u": {2: 0.0, 4: 0.0}},
            ),
        },
        beside=7.0,
    )


SEARCHED = network(
    {"first": (8,), "c": (1, 2), "d": (1, 2), "e": (1, 2)},
    {"image": (8,), "t": (2, 4), "u": (2, 4)},
    {"first": "image", "c": "t", "d": "t", "e": "t"},
)


def test_a_certain_choice_costs_what_the_table_says_scaled_by_the_calibration():
    cost = objective.Latency(SEARCHED, by_hand(), Calibration(2.0, 5.0))
    as_it_is = BitAssignment({"first": 8, "c": 2, "d": 2, "e": 2}, {"image": 8, "t": 2, "u": 2})
    # c and e read planes, d codes: t is written as both
    assert cost.raw(as_it_is) == 100.0 + 4.0 + 200.0 + 300.0 + 400.0 + 7.0
    assert cost.of(as_it_is) == 2 * 1011.0 + 5
    two = probs(c=[0, 1], d=[0, 1], e=[0, 1])
    assert cost.expected(two, probs(t=[1, 0], u=[1, 0])).item() == pytest.approx(2027.0)
    # u at four bits is written by two layers, for which nothing wants a format: 12 and 20 more
    assert cost.expected(two, probs(t=[1, 0], u=[0, 1])).item() == pytest.approx(2 * (1011.0 + 12 + 20) + 5)
    # t at four bits: all want codes, written 10 dearer; read in L1 40 dearer, once; in L2 5; L3 looks at it for 30
    four = cost.expected(two, probs(t=[0, 1], u=[1, 0])).item()
    assert four == pytest.approx(2 * (1007.0 + 10 + 40 + 5 + 30) + 5)


def test_the_expectation_is_over_every_choice():
    cost = objective.Latency(SEARCHED, by_hand(), Calibration(1.5, 2.0))
    p, q = probs(c=[0.1, 0.9], d=[0.7, 0.3], e=[0.4, 0.6]), probs(t=[0.8, 0.2])
    total = 0.0
    for c, d, e, t in itertools.product(range(2), repeat=4):
        chance = p["c"][c] * p["d"][d] * p["e"][e] * q["t"][t]
        bits = {"first": (8, 8), **{k: ((1, 2)[w], (2, 4)[t]) for k, w in (("c", c), ("d", d), ("e", e))}}
        total += chance.item() * (1.5 * by_hand().predict(bits) + 2.0)
    assert cost.expected(p, {**q, **probs(u=[1, 0])}).item() == pytest.approx(total, rel=1e-12)


def test_a_table_that_lacks_something_is_refused():
    with pytest.raises(UsageError, match="the latency table of by hand has no layer f: it was measured on another"):
        objective.Latency(network({"f": (1, 2), "g": (1, 2)}, {"t": (2, 4)}, {"f": "t", "g": "t"}), by_hand())
    with pytest.raises(UsageError, match="of by hand layer c reads t, in the network image$"):
        objective.Latency(network({"c": (1, 2)}, {"image": (8,)}, {"c": "image"}), by_hand())
    all_read_t = {"first": "image", "c": "t", "d": "t", "e": "t"}
    weights = {"first": (8,), "c": (2,), "d": (2,), "e": (2,)}
    with pytest.raises(UsageError, match="has no A3 of quantizer u: it has A2, A4$"):
        objective.Latency(network(weights, {"image": (8,), "t": (2,), "u": (2, 3)}, all_read_t), by_hand())


# -- prices ------------------------------------------------------------------------------------------------------------
def test_a_weight_prices_by_its_unit():
    assert objective.WeightPrice(3.0, 2.0).term(torch.tensor(10.0)).item() == 15.0


# -- landing -----------------------------------------------------------------------------------------------------------
class Sum(objective.Cost):
    """Of knobs by name: {bits: cost}. `together`: what is added, by all bits."""

    unit = "coins"

    def __init__(self, together=lambda bits: 0.0, **knobs):
        super().__init__(network({k: tuple(costs) for k, costs in knobs.items()}, {}, {}))
        self.knobs, self.together = knobs, together

    def expected(self, weights, tensors):
        raise AssertionError("landing asks what an assignment costs, not what a mixture is expected to")

    def of(self, assignment):
        bits = dict(assignment.weights)
        return float(sum(costs[bits[k]] for k, costs in self.knobs.items()) + self.together(bits))


def land(cost, start, target, **chances):
    """Name → bits; `chances`: of each knob, the log probability of its candidates."""
    of_all = {"weights": {k: torch.tensor(c, dtype=torch.float64) for k, c in chances.items()}, "tensors": {}}
    return dict(objective.land(BitAssignment(start, {}), of_all, cost, target).weights)


BOTH_WIDE = {"x": 4, "y": 4}


def test_it_is_narrowed_where_the_least_is_lost_for_what_is_saved():
    """x loses twice as much as y, and saves five times as much."""
    cost = Sum(x={2: 10, 4: 20}, y={2: 8, 4: 10})
    assert land(cost, BOTH_WIDE, 28, x=[-1.0, 0.0], y=[-0.5, 0.0]) == {"x": 2, "y": 4}
    assert land(cost, BOTH_WIDE, 28, x=[-3.0, 0.0], y=[-0.5, 0.0]) == {"x": 4, "y": 2}


def test_what_saves_nothing_is_not_narrowed():
    cost = Sum(x={2: 10, 4: 20}, free={2: 1, 4: 1})
    assert land(cost, {"x": 4, "free": 4}, 12, x=[-1.0, 0.0], free=[-0.1, 0.0]) == {"x": 2, "free": 4}


class Product(Sum):
    """Of the bits of weights x and tensor t; `uneven`: what it costs that they are not the same."""

    def __init__(self, uneven=0):
        super().__init__(x={2: 0, 4: 0})
        self.a, self.uneven = {"t": (2, 4)}, uneven

    def of(self, assignment):
        x, t = assignment.weights["x"], assignment.tensors["t"]
        return float(x * t + self.uneven * (x != t))


@pytest.mark.parametrize(
    "uneven, budget, x, t", [(0, 8, 4, 2), (0, 4, 2, 2), (100, 4, 2, 2), (100, 15, 2, 2), (100, 16, 4, 4)]
)
def test_tensors_are_narrowed_like_weights(uneven, budget, x, t):
    chances = {"weights": {"x": torch.tensor([-1.0, 0.0])}, "tensors": {"t": torch.tensor([-0.5, 0.0])}}
    found = objective.land(BitAssignment({"x": 4}, {"t": 4}), chances, Product(uneven), budget)
    assert found == BitAssignment({"x": x}, {"t": t})


def test_what_is_within_the_budget_is_not_narrowed():
    """Also where it is spent to the last coin, and bits could be moved to where they are likelier."""
    cost = Sum(x={2: 1, 4: 2}, y={2: 1, 4: 2})
    assert land(cost, {"x": 4, "y": 2}, 3, x=[-0.1, 0.0], y=[-0.2, 0.0]) == {"x": 4, "y": 2}


def test_what_need_not_have_been_narrowed_is_made_likelier_again_the_likeliest_first():
    """z is narrowed first, as that is nearly free; x saves far more than is then lacking. Of what fits again it is not
    z's few coins, but w, which was not the likeliest to begin with."""
    cost = Sum(x={2: 0, 4: 20}, z={2: 0, 4: 1}, w={2: 0, 4: 3})
    found = land(cost, {"x": 4, "z": 4, "w": 2}, 3, x=[-9.0, 0.0], z=[-0.4, 0.0], w=[-1.0, 0.0])
    assert found == {"x": 2, "z": 2, "w": 4}


def test_fewer_bits_are_taken_where_they_are_likelier_and_what_that_saves_is_spent():
    cost = Sum(z={2: 1, 4: 4}, w={2: 1, 4: 4})
    assert land(cost, {"z": 4, "w": 2}, 5, z=[0.0, -1.0], w=[0.0, -0.1]) == {"z": 2, "w": 4}


def test_equally_likely_bits_are_no_reason_to_change():
    cost = Sum(x={2: 1, 4: 2}, y={2: 1, 4: 2})
    assert land(cost, {"x": 2, "y": 4}, 3, x=[0.0, 0.0], y=[0.0, 0.0]) == {"x": 2, "y": 4}


def test_what_is_left_is_spent_where_the_least_is_lost_for_what_it_costs():
    """r loses 0.1 for four coins, s 0.05 for one."""
    cost = Sum(r={2: 10, 4: 14}, s={2: 10, 4: 11})
    assert land(cost, {"r": 2, "s": 2}, 24, r=[0.0, -0.1], s=[0.0, -0.05]) == {"r": 4, "s": 2}
    assert land(cost, {"r": 2, "s": 2}, 24, r=[0.0, -0.3], s=[0.0, -0.05]) == {"r": 2, "s": 4}
    assert land(cost, {"r": 2, "s": 2}, 25, r=[0.0, -0.1], s=[0.0, -0.05]) == {"r": 4, "s": 4}


def test_bits_that_cost_nothing_are_taken_before_all_others():
    """At four bits, which p has for nothing, eight are likelier by far, and two coins worth."""
    cost = Sum(p={2: 0, 4: 0, 8: 2}, r={2: 0, 4: 2})
    assert land(cost, {"p": 2, "r": 2}, 2, p=[0.0, -5.0, -0.2], r=[0.0, -0.1]) == {"p": 8, "r": 2}


def test_a_local_minimum_above_the_budget_is_left_all_the_way_down():
    """Narrowing one of the two alone costs more."""
    cost = Sum(lambda bits: 8 * (bits["x"] != bits["y"]), x={1: 1, 2: 3, 4: 5}, y={1: 1, 2: 3, 4: 5})
    flat = [-0.2, -0.1, 0.0]
    assert land(cost, BOTH_WIDE, 5, x=flat, y=flat) == {"x": 1, "y": 1}


def test_the_fewest_bits_are_the_last_resort():
    cost = Sum(x={2: 10, 4: 20}, y={2: 8, 4: 10})
    assert land(cost, BOTH_WIDE, 18, x=[-1.0, 0.0], y=[-0.5, 0.0]) == {"x": 2, "y": 2}
    with pytest.raises(UsageError, match="no choice of bits costs 17 coins or less: the fewest bits cost 18$"):
        land(cost, BOTH_WIDE, 17, x=[-1.0, 0.0], y=[-0.5, 0.0])
