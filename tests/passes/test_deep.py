"""Models that are deep, not wide: no pass's stack is as deep as they are, and no layer as long."""

import numpy as np
import pytest

from mpcompile.compiler.passes import fuse_layers
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.dataflow import MOST_FUSED
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import Layer
from mpcompile.reference.interpret import interpret
from mpcompile.reference.run import run
from tests.passes.nets import A2, A4, Net
from tests.passes.random_graphs import random_graph

DEEP = 1500


def adds(net: Net, x: str) -> str:
    return net.add(net.clip(x, -8, 8), x)


def quantized(net: Net, x: str) -> str:
    return net.affine(net.quant(x, A4), 0.75, 0.125)


def pools(net: Net, x: str) -> str:
    return net.pool(x, "max", 3, 1, 1)


def mixed(net: Net, x: str) -> str:
    step = len(net.graph.nodes) % 5
    return (net.bn, net.prelu, net.quant, net.clip, net.bn)[step](x, *((0.5,) if step == 1 else ()))


def chain(make, count: int) -> Graph:
    net = Net(3, 4, 4)
    t = net.quant("x")
    for _ in range(count):
        t = make(net, t)
    net.graph.outputs.append(net.quant(t, A2))
    return net.graph


@pytest.mark.parametrize("make", [adds, quantized, pools, mixed])
def test_a_deep_chain_becomes_layers_of_some_length(make):
    graph = apply_all(chain(make, DEEP), TO_LAYERS)
    layers = [node for node in graph.nodes if isinstance(node, Layer)]
    assert layers and all(len(layer.source) <= 2 * MOST_FUSED for layer in layers)


@pytest.mark.parametrize("make", [adds, quantized, pools, mixed])
def test_it_computes_what_it_did(make):
    """Code by code at its end."""
    graph = chain(make, 300)
    x = np.random.default_rng(0).normal(0, 1, (3, 4, 4)).astype(np.float32)
    (name,) = graph.outputs
    np.testing.assert_array_equal(run(apply_all(graph, TO_LAYERS), {"x": x})[name], interpret(graph, {"x": x})[name])


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_wherever_a_chain_is_cut_layers_write_the_same(longest, monkeypatch):
    """Random graphs, cut often: the same values as when they are not, but where rounding to float32 in memory, or its
    absence, decides a tie."""
    total = wrong = 0
    for number in range(60):
        graph, inputs, _ = random_graph(number)
        whole = run(apply_all(graph, TO_LAYERS), inputs)
        with monkeypatch.context() as patch:
            patch.setattr(fuse_layers, "MOST_FUSED", longest)
            pieces = apply_all(graph, TO_LAYERS)
        found = run(pieces, inputs)
        for t in graph.outputs:
            off = ~np.isclose(found[t], whole[t], rtol=1e-5, atol=1e-5)
            total, wrong = total + off.size, wrong + np.count_nonzero(off)
    assert total > 5000
    assert wrong <= total / 1000, (wrong, total)
