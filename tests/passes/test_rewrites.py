"""The passes in front of `fuse_layers`, one by one. That they change no value is tested on random graphs."""

from __future__ import annotations

import numpy as np

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.fuse_layers import FuseLayers
from mpcompile.compiler.passes.restore_codes import RestoreCodes
from mpcompile.compiler.passes.sink_pools import SinkPools
from mpcompile.compiler.passes.sink_reshapes import SinkReshapes
from mpcompile.compiler.passes.split_concats import SplitConcats
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.graph import Conv, Pooling, Quantize, Quantizer
from mpcompile.ir.grid import unsigned
from mpcompile.ir.layer import Layer, PoolTerm
from mpcompile.reference.interpret import interpret
from mpcompile.reference.run import run
from tests.passes.nets import A2, A4, Net


def ops(graph):
    return [n.op for n in graph.nodes]


def same(graph, rewritten):
    """Every tensor that both graphs have, and all outputs, are equal bit by bit."""
    x = {t: np.random.default_rng(0).normal(0, 1, graph.types[t].shape).astype(np.float32) for t in graph.inputs}
    before, after = interpret(graph, x), interpret(rewritten.check(), x)
    assert set(graph.outputs) <= set(after)
    for t in set(before) & set(after):
        np.testing.assert_array_equal(before[t], after[t], t)
    return rewritten


def pooled(negative: bool, skip: bool = False):
    net = Net(4, 6, 6)
    y = net.pool(net.conv(net.quant("x", A4), 5))
    z = net.quant(net.clip(net.bn(y, negative)))
    return net.done(net.conv(z, 2), *([y] if skip else []))


def test_max_pool_sinks_below_its_quantizer():
    graph = pooled(False)
    rewritten = same(graph, SinkPools().apply(graph))
    assert ops(rewritten) == ["Quantize", "Conv", "Affine", "Clip", "Quantize", "Pooling", "Conv"]


def test_max_pool_stays_above_a_negative_scale():
    graph = pooled(True)
    assert ops(same(graph, SinkPools().apply(graph))) == ops(graph)


def test_max_pool_stays_where_its_result_is_read_in_float():
    graph = pooled(False, skip=True)
    assert ops(same(graph, SinkPools().apply(graph))) == ops(graph)
    fused = apply_all(graph, TO_LAYERS)
    pool = next(n for n in fused.nodes if isinstance(n.terms[0], PoolTerm))
    assert len(pool.results) == 2


def test_max_pool_before_two_quantizers_becomes_two_pools_of_codes():
    net = Net(4, 6, 6)
    y = net.pool(net.bn(net.conv(net.quant("x", A4), 5)))
    graph = net.done(net.conv(net.quant(y), 2), net.conv(net.quant(y, A4), 2))
    rewritten = same(graph, SinkPools().apply(graph))
    assert ops(rewritten).count("Pooling") == 2
    assert all(rewritten.types[n.inputs[0]].quantizer for n in rewritten.nodes if isinstance(n, Pooling))


def test_average_pool_stays():
    net = Net(4, 6, 6)
    graph = net.done(net.conv(net.quant(net.pool(net.conv(net.quant("x", A4), 5), "avg")), 2))
    assert ops(SinkPools().apply(graph)) == ops(graph)


def test_concat_sinks_to_the_convolution():
    net = Net(4, 6, 6)
    x = net.quant("x", A4)
    y = net.concat(net.conv(x, 3), net.concat(net.conv(x, 5), net.conv(x, 2)))
    y = net.quant(net.clip(net.bn(net.pool(y), negative=True)))
    graph = net.done(net.conv(y, 7))
    rewritten = same(graph, SplitConcats().apply(graph))
    assert ops(rewritten)[-2:] == ["Concat", "Conv"]
    assert len(rewritten.nodes[-2].inputs) == 3 and ops(rewritten).count("Quantize") == 4
    assert all(isinstance(n, Layer) for n in apply_all(graph, TO_LAYERS).nodes)


def test_depthwise_convolution_splits_with_its_concat():
    net = Net(4, 6, 6)
    x = net.concat(net.quant("x", A4), net.quant("x", A2))
    graph = net.done(net.conv(net.quant(net.conv(x, 16, 3, 1, 8, bias=True)), 3))
    rewritten = same(graph, SplitConcats().apply(graph))
    assert [n.groups for n in rewritten.nodes if isinstance(n, Conv)] == [4, 4, 1]


def test_concat_that_is_read_in_float_stays_too():
    net = Net(4, 6, 6)
    x = net.quant("x", A4)
    y = net.concat(net.conv(x, 3), net.conv(x, 5), called="both")
    graph = net.done(net.conv(net.quant(y), 7), "both")
    rewritten = same(graph, SplitConcats().apply(graph))
    assert ops(rewritten).count("Concat") == 2
    fused = apply_all(graph, TO_LAYERS)
    assert [n.op_type for n in fused.nodes if n.op == "FloatOp"] == ["Concat"]
    x = {"x": np.random.default_rng(0).normal(0, 1, (4, 6, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(fused, x)["both"], interpret(graph, x)["both"], rtol=1e-5, atol=1e-5)


def test_flatten_sinks_below_the_quantizer_but_not_below_channels():
    net = Net(4, 3, 3)
    y = net.quant(net.clip(net.flatten(net.conv(net.quant("x", A4), 5))))
    graph = net.done(net.dense(y, 3))
    rewritten = same(graph, SinkReshapes().apply(graph))
    assert ops(rewritten) == ["Quantize", "Conv", "Clip", "Quantize", "Reshape", "Dense"]
    net = Net(4, 3, 3)
    graph = net.done(net.dense(net.quant(net.bn(net.flatten(net.conv(net.quant("x", A4), 5)))), 3))
    assert ops(same(graph, SinkReshapes().apply(graph))) == ops(graph)


def test_codes_are_restored_behind_a_transpose():
    net = Net(4, 3, 5)
    y = net.quant(net.conv(net.quant("x", A4), 6), Quantizer(unsigned(3), 0.3, rounding="floor"))
    y = net.transpose(y, 1, 0, 2)
    graph = net.done(net.conv(y, 2, called="y"))
    rewritten = same(graph, RestoreCodes().apply(graph))
    roundings = [n.quantizer.rounding for n in rewritten.nodes if isinstance(n, Quantize)]
    assert roundings == ["half_even", "floor", "half_even"]
    fused = apply_all(rewritten, [FuseLayers()])
    assert ops(fused) == ["Layer", "Layer", "Transpose", "Layer", "Layer"]
    x = {"x": np.random.default_rng(0).normal(0, 1, (4, 3, 5)).astype(np.float32)}
    np.testing.assert_allclose(run(fused, x)["y"], interpret(graph, x)["y"], rtol=1e-5, atol=1e-5)


def test_passes_leave_the_graph_they_were_given_alone():
    graph = pooled(False)
    nodes = [(n.op, n.name, list(n.inputs), list(n.outputs)) for n in graph.nodes]
    types = dict(graph.types)
    apply_all(graph, TO_LAYERS)
    assert nodes == [(n.op, n.name, list(n.inputs), list(n.outputs)) for n in graph.nodes] and types == graph.types
