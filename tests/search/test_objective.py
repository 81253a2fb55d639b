"""The expected cost against the sum over all assignments; prices; landing on a budget."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from mpcompile.errors import UsageError
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.latency.requantize import requantize
from mpcompile.search.calibrate import Calibration, calibrate
from mpcompile.search.export import export
from mpcompile.search.layers import BitAssignment
from mpcompile.search.methods.ebs import EBS
from mpcompile.search.objective import BitOps, Latency, WeightPrice, bitops, land, normalised_bits
from tests.latency.simulated import Simulated
from tests.search.nets import random_assignment, small

BITS = (1, 8)


@pytest.fixture(scope="module")
def network():
    return small(widths=(6, 10), blocks=(1, 1), bits=BITS)


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    network.assign(network.uniform(*BITS))
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    export(network, path)
    return load(path)


@pytest.fixture(scope="module")
def table(model, tmp_path_factory):
    return build_table(
        model, BitCandidates.of(BITS, BITS), Simulated(), Cache(tmp_path_factory.mktemp("cache") / "cells")
    )


def probabilities(network, seed):
    draw = torch.Generator().manual_seed(seed)
    return [
        {
            name: torch.softmax(2 * torch.randn(len(k.candidates), generator=draw), 0)
            for name, k in choices.items()
            if k.searched
        }
        for choices in (network.weights, network.tensors)
    ]


def brute_force(network, cost, p, q):
    """Σ over every assignment of probability · cost."""
    names = [("weights", k) for k in p] + [("tensors", k) for k in q]
    fixed = network.uniform(*BITS)
    total = 0.0
    for choice in itertools.product(range(len(BITS)), repeat=len(names)):
        bits = {"weights": dict(fixed.weights), "tensors": dict(fixed.tensors)}
        chance = 1.0
        for (kind, name), i in zip(names, choice):
            bits[kind][name] = BITS[i]
            chance *= (p if kind == "weights" else q)[name][i].item()
        total += chance * cost.of(BitAssignment(**bits))
    return total


@pytest.mark.parametrize("seed", range(2))
def test_expected_latency_is_the_expectation_of_the_prediction(network, table, seed):
    """2 bits for each of 5 layers and 4 tensors: 512 assignments, one tensor with two readers."""
    cost, (p, q) = Latency(network, table, Calibration(1.25, 3e-6)), probabilities(network, seed)
    assert cost.expected(p, q).item() == pytest.approx(brute_force(network, cost, p, q), rel=1e-6)


def test_what_it_averages_over_includes_both_formats_at_once(network, table):
    """A tensor that two layers read is written as planes and as codes where they differ; the test above is blind
    without."""
    cost, (p, _) = Latency(network, table), probabilities(network, 0)
    chances = cost._formats("stage2.block1.input", {k: v.double() for k, v in p.items()})
    assert max(chances["codes+planes"].tolist()) > 0.01
    assert sum(chances.values()).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("seed", range(4))
def test_the_table_knows_the_exported_network(network, model, table, seed):
    """What the objective says of an assignment is what the simulated device takes for the network at these bits."""
    assignment = random_assignment(network, seed)
    moved = requantize(model, dict(assignment.weights.items()), dict(assignment.tensors))
    assert Latency(network, table).of(assignment) == pytest.approx(Simulated().network(moved), rel=1e-9)


@pytest.mark.parametrize("kind", [BitOps, Latency])
def test_gradients_reach_the_strengths(network, table, kind):
    cost = kind(network) if kind is BitOps else Latency(network, table)
    method = EBS(network)
    method.mix(network, 0.0, torch.Generator(), learn=True)
    method.cost(cost).backward()
    for choice in (*method.weights.values(), *method.tensors.values()):
        gradient = method.strengths[choice.name.replace(".", "/")].grad
        assert gradient[0] < 0 < gradient[1]  # narrower is cheaper


def test_expected_bitops_is_the_product_of_the_expected_bits(network):
    cost, (p, q) = BitOps(network), probabilities(network, 3)
    bits = {k: (v @ torch.tensor(BITS, dtype=v.dtype)).item() for k, v in (p | q).items()}
    reads = network.reads()
    assert cost.expected(p, q).item() == pytest.approx(
        sum(m * bits[k] * bits[reads[k]] for k, m in cost.macs.items()), rel=1e-6
    )


def test_edmips_mean_bits():
    """The configuration of ResNet-18 that EdMIPS ships: 1695.55 M MACs, 6.7308 G BitOps, "bit" 1.99241."""
    shapes = [(64, 64, 56, 3)] * 4
    for c, h in ((128, 28), (256, 14), (512, 7)):
        shapes += [(c // 2, c, h, 3), (c, c, h, 3), (c // 2, c, h, 1), (c, c, h, 3), (c, c, h, 3)]
    bits = [(1, 2)] * 4 + [
        (3, 2),
        (2, 2),
        (4, 4),
        (2, 2),
        (1, 2),
        (3, 3),
        (2, 3),
        (4, 3),
        (2, 2),
        (1, 2),
        (3, 3),
        (2, 3),
        (4, 3),
        (2, 2),
        (2, 2),
    ]
    macs = {str(i): c * o * k * k * h * h for i, (c, o, h, k) in enumerate(shapes)}
    chosen = {str(i): b for i, b in enumerate(bits)}
    assert sum(macs.values()) / 1e6 == pytest.approx(1695.55, abs=0.005)
    assert bitops(macs, chosen) / 1e9 == pytest.approx(6.7308, abs=5e-5)
    assert normalised_bits(macs, chosen) == pytest.approx(1.99241, abs=5e-6)


def test_a_table_of_another_network_is_refused(table):
    with pytest.raises(UsageError, match="no layer stage1.block2.first"):
        Latency(small(blocks=(2, 1), bits=BITS), table)
    with pytest.raises(UsageError, match="has no A4 of"):
        Latency(small(bits=(1, 4)), table)


def test_a_weight_prices_linearly():
    assert WeightPrice(0.5, 10.0).term(torch.tensor(4.0)).item() == pytest.approx(0.2)


def log_probs(network, seed):
    return {
        kind: {
            name: torch.log_softmax(
                torch.randn(len(k.candidates), generator=torch.Generator().manual_seed(seed + i)), 0
            )
            for i, (name, k) in enumerate(choices.items())
            if k.searched
        }
        for kind, choices in (("weights", network.weights), ("tensors", network.tensors))
    }


@pytest.mark.parametrize("seed", range(5))
def test_landing_stays_below_the_target_and_leaves_nothing_of_it(network, table, seed):
    cost, chances = Latency(network, table), log_probs(network, 20 * seed)
    target = cost.narrowest() + 0.4 * (cost.widest() - cost.narrowest())
    found = land(network.uniform(8, 8), chances, cost, target)
    spent = cost.of(found)
    assert cost.narrowest() <= spent <= target
    for kind in ("weights", "tensors"):
        for name in chances[kind]:
            bits = dict(getattr(found, kind))
            if bits[name] != BITS[-1]:
                moved = BitAssignment(**{**vars(found), kind: {**bits, name: BITS[-1]}})
                assert cost.of(moved) > target


def test_landing_spends_what_is_left_where_it_is_likeliest(network, table):
    cost, chances = Latency(network, table), log_probs(network, 1)
    best = {kind: {n: (BITS[int(c.argmax())]) for n, c in chances[kind].items()} for kind in chances}
    uniform = network.uniform(1, 1)
    readout = BitAssignment({**uniform.weights, **best["weights"]}, {**uniform.tensors, **best["tensors"]})
    assert land(readout, chances, cost, 2 * cost.widest()) == network.uniform(BITS[-1], BITS[-1])
    with pytest.raises(UsageError, match="no choice of bits"):
        land(readout, chances, cost, 0.5 * cost.narrowest())


def test_calibration():
    assert calibrate([], []) == Calibration()
    assert calibrate([1.0, 2.0], [1.5, 2.3])(1.0) == pytest.approx(1.4)
    found = calibrate([1.0, 2.0, 3.0, 5.0], [1.3, 2.4, 3.5, 5.7])
    assert (found.slope, found.offset) == pytest.approx((1.1, 0.2))
    same = calibrate([1.0] * 5, [1.1, 1.2, 1.3, 1.2, 1.2])  # no slope in one network measured again and again
    assert same.slope == 1 and same.offset == pytest.approx(0.2)
    assert math.isfinite(same(3.0))


@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_bits_are_the_cheapest_of_all(network, table, seed):
    """Also in a table of numbers that know nothing of bits, where the fewest are not it. Every assignment is tried of each
    tensor and its readers, which cost nothing to one another."""
    shaken = copy.deepcopy(table)
    rng = np.random.default_rng(seed)
    for row in shaken.layers.values() if seed else ():
        for cells in (*row.reads.values(), *row.packs.values()):
            for cell in cells.values():
                for form in cell:
                    cell[form] *= float(rng.uniform(0.3, 3.0))
    cost = Latency(network, shaken, Calibration(1.3, 1e-6))
    found = cost.cheapest()
    reads, spent = network.reads(), cost.of(found)
    for tensor in network.tensors:
        group = [("weights", k) for k, t in reads.items() if t == tensor] + [("tensors", tensor)]
        for choice in itertools.product(*(getattr(network, kind)[name].candidates for kind, name in group)):
            made = {"weights": dict(found.weights), "tensors": dict(found.tensors)}
            for (kind, name), bits in zip(group, choice):
                made[kind][name] = bits
            assert cost.of(BitAssignment(**made)) >= spent * (1 - 1e-12)
    assert cost.least() == spent <= cost.narrowest()
    assert seed == 0 or spent < cost.narrowest()
    rough = land(network.uniform(8, 8), log_probs(network, seed), cost, spent * (1 + 1e-9))
    assert cost.of(rough) == pytest.approx(spent)
