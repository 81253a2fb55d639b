"""Reshapes and transposes as orders, and where they end up. That they change no value is tested on random graphs, too."""

import numpy as np

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.fold_transposes import FoldTransposes
from mpcompile.compiler.passes.sink_rearranges import SinkRearranges
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.graph import Along, FloatOp, Mul, Rearrange, View
from mpcompile.ir.layer import Layer
from mpcompile.reference.run import run
from tests.passes.nets import A4, Net
from tests.passes.test_rewrites import ops, same


def moved(graph):
    """After both passes."""
    return same(graph, SinkRearranges().apply(same(graph, FoldTransposes().apply(graph))))


def blocks(net: Net, x: str) -> str:
    """Depth to space of blocks of two."""
    c, h, w = net.shape(x)
    apart = net.reshape(x, c // 4, 2, 2, h, w)
    return net.reshape(net.transpose(apart, 0, 3, 1, 4, 2), c // 4, 2 * h, 2 * w)


def test_a_graph_without_transposes_is_left_alone():
    net = Net(4, 6, 6)
    graph = net.done(net.dense(net.flatten(net.quant(net.conv(net.quant("x", A4), 5))), 3))
    assert FoldTransposes().apply(graph) is graph and SinkRearranges().apply(graph) is graph


def test_a_chain_between_layers_is_one_rearrangement_of_codes():
    net = Net(4, 6, 6)
    y = blocks(net, net.clip(net.bn(net.conv(net.quant("x", A4), 8))))
    graph = net.done(net.conv(net.quant(y, A4), 3))
    rewritten = moved(graph)
    assert ops(rewritten) == ["Quantize", "Conv", "Affine", "Clip", "Quantize", "Rearrange", "Conv"]


def test_what_only_float_operators_read_stays_a_chain():
    net = Net(4, 6, 6)
    y = blocks(net, net.conv(net.quant("x", A4), 8))
    graph = net.done(net.put(FloatOp, [y], net.shape(y), op_type="Erf"))
    assert "Rearrange" not in ops(FoldTransposes().apply(graph))


def test_two_that_undo_each_other_are_none():
    net = Net(5, 4, 7)
    y = net.transpose(net.conv(net.quant("x", A4), 6), 1, 2, 0)
    y = net.transpose(net.clip(y), 2, 0, 1)
    graph = net.done(net.conv(net.quant(y, A4), 3))
    assert "Rearrange" not in ops(moved(graph))


def test_constants_of_channels_that_it_mixes_stay_behind():
    net = Net(4, 6, 6)
    y = net.transpose(net.conv(net.quant("x", A4), 6), 1, 0, 2)
    graph = net.done(net.conv(net.quant(net.bn(y), A4), 3))
    assert ops(moved(graph)) == ["Quantize", "Conv", "Rearrange", "Affine", "Quantize", "Conv"]


def test_a_slice_behind_it_is_part_of_it():
    net = Net(4, 6, 6)
    y = blocks(net, net.conv(net.quant("x", A4), 8))
    along = (Along(2), Along(9, 1), Along(10, 2))
    y = net.put(View, [y], (2, 9, 10), along=along)
    rewritten = moved(net.done(net.conv(net.quant(net.bn(y), A4), 3)))
    assert ops(rewritten) == ["Quantize", "Conv", "Affine", "Quantize", "Rearrange", "Conv"]
    assert next(n for n in rewritten.nodes if isinstance(n, Rearrange)).along == along


def test_of_two_operands_the_other_is_moved_back():
    net = Net(8, 3, 4)
    x = net.quant("x", A4)
    y = blocks(net, net.conv(x, 16))
    z = net.conv(x, 16)
    other = net.reshape(net.transpose(net.reshape(z, 4, 3, 2, 4, 2), 0, 1, 2, 4, 3), 4, 6, 8)
    graph = net.done(net.conv(net.quant(net.put(Mul, [y, other], (4, 6, 8)), A4), 3))
    rewritten = moved(graph)
    product = next(n for n in rewritten.nodes if isinstance(n, Mul))
    assert rewritten.types[product.outputs[0]].shape == (16, 3, 4)


def test_a_turned_input_is_quantized_as_it_is_read():
    net = Net(6, 20)
    x = net.quant("x", A4)
    turned = [net.transpose(x, 1, 0) for _ in range(2)]
    graph = net.done(*(net.conv(t, 5, 1) for t in turned))
    assert ops(moved(graph)) == ["Rearrange", "Quantize", "Conv", "Conv"]


def test_a_layer_writes_channels_last_what_no_layer_reads():
    net = Net(7, 3, 5)
    y = net.conv(net.quant("x", A4), 20)
    last = net.transpose(y, 1, 2, 0)
    both = net.transpose(net.conv(net.quant(y), 20), 1, 2, 0)
    pooled = net.pool(both, "avg")
    graph = net.done(last, both, pooled)
    fused = apply_all(graph, TO_LAYERS)
    assert {n.op for n in fused.nodes} == {"Layer"}
    written = {r.name: r.channels_last for n in fused.nodes if isinstance(n, Layer) for r in n.results}
    assert {name for name, done in written.items() if done} == {last, both}
    assert not {last, both} & {t for n in fused.nodes for t in n.inputs}
    x = {"x": np.random.default_rng(0).normal(0, 1, (7, 3, 5)).astype(np.float32)}
    got = run(fused, x)[last]
    np.testing.assert_array_equal(got, run(apply_all(net.done(y), TO_LAYERS), x)[y].transpose(1, 2, 0))
