"""Which operators become one table, and which do not. That no value changes is tested on random graphs, too."""

from __future__ import annotations

import numpy as np

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.fold_tables import FoldTables
from mpcompile.compiler.passes.split_concats import SplitConcats
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.graph import Add, Along, Mul, Quantizer, Table, View
from mpcompile.ir.grid import Grid, unsigned
from mpcompile.ir.layer import Layer, LookUp, Times
from tests.passes.nets import A4, Net
from tests.passes.test_rewrites import ops, same

GATE = Quantizer(unsigned(8), 1 / 255)


def sigmoid(x):
    return (1 / (1 + np.exp(-x))).astype(np.float32)


class Tables(Net):
    def table(self, x: str, function=sigmoid) -> str:
        of = self.graph.types[x].quantizer
        return self.put(Table, [x], self.shape(x), values=function(of.grid.values * of.scale))

    def mul(self, x: str, y: str) -> str:
        return self.put(Mul, [x, y], self.shape(x))

    def view(self, x: str, *along: Along) -> str:
        return self.put(View, [x], tuple(a.size for a in along), self.graph.types[x].quantizer, along=along)


def test_silu_is_one_table_whose_values_are_counted_by_hand():
    net = Tables(4, 3, 3)
    x = net.quant("x", A4)  # two's complement, 4 bits, 0.25
    y = net.quant(net.mul(x, net.quant(net.table(x), GATE)), Quantizer(unsigned(4, 3), 0.125, 3))
    graph = net.done(net.conv(y, 2))
    rewritten = same(graph, FoldTables().apply(graph))
    assert ops(rewritten) == ["Quantize", "Table", "Conv"]
    table = rewritten.nodes[1]
    assert table.inputs == [x] and table.quantizer.spacing == 0.125
    # 1.75·sigmoid(1.75) = 1.49, of which twelve eighths are the nearest; −2·sigmoid(−2) = −0.238: minus two
    assert table.values[[0, 8, 15]].tolist() == [-0.25, 0.0, 1.5]


def test_a_table_that_others_read_is_folded_all_the_same():
    net = Tables(4, 3, 3)
    t = net.table(net.quant("x", A4))
    graph = net.done(net.conv(net.quant(t, GATE), 2), t)
    assert ops(same(graph, FoldTables().apply(graph))) == ["Quantize", "Table", "Table", "Conv"]


def test_constants_of_one_channel_go_in_and_those_of_several_do_not():
    net = Tables(4, 3, 3)
    t = net.clip(net.affine(net.table(net.quant("x", A4)), 2.0, -0.5), 0.25, 1.0)
    graph = net.done(net.affine(t, [1.0, 2.0, 3.0, 4.0], 0.0))
    rewritten = same(graph, FoldTables().apply(graph))
    assert ops(rewritten) == ["Quantize", "Table", "Affine"]
    assert rewritten.nodes[1].values.min() == 0.25 and rewritten.nodes[1].values.max() == 1.0


def test_arithmetic_on_codes_alone_is_no_table():
    net = Tables(4, 3, 3)
    x = net.quant("x", A4)
    graph = net.done(net.clip(net.affine(x, 2.0, 1.0)), net.put(Add, [x, x], net.shape(x)))
    assert ops(same(graph, FoldTables().apply(graph))) == ops(graph)


def test_a_square_of_codes_is_a_table():
    net = Tables(4, 3, 3)
    x = net.quant("x", A4)
    graph = net.done(net.mul(x, x))
    rewritten = same(graph, FoldTables().apply(graph))
    assert ops(rewritten) == ["Quantize", "Table"] and rewritten.nodes[1].values.max() == 4.0


def test_codes_of_9_bits_get_none():
    net = Tables(4, 3, 3)
    x = net.quant("x", Quantizer(Grid(tuple(1 << i for i in range(9)), 0, 0, 511), 0.01))
    graph = net.done(net.mul(x, x))
    assert ops(same(graph, FoldTables().apply(graph))) == ["Quantize", "Mul"]


def test_functions_of_different_codes_stay_a_product():
    net = Tables(4, 3, 3)
    x, y = net.quant("x", A4), net.quant(net.bn("x"), A4)
    graph = net.done(net.mul(net.table(x), y))
    assert ops(same(graph, FoldTables().apply(graph))) == ops(graph)


def test_a_table_of_quantized_tables_reads_the_nearest_codes():
    """Not those that are two quantizers away: another layer may hold these."""
    net = Tables(4, 3, 3)
    s = net.quant(net.table(net.quant("x", A4)), GATE)
    graph = net.done(net.conv(s, 2), net.table(s))
    rewritten = same(graph, FoldTables().apply(graph))
    assert ops(rewritten) == ["Quantize", "Table", "Conv", "Table"]
    assert rewritten.nodes[3].inputs == rewritten.nodes[1].outputs


def test_a_gate_is_two_layers_of_which_none_copies_the_map():
    net = Tables(8, 4, 4)
    x = net.quant(net.conv(net.quant("x", A4), 8), GATE)
    gate = net.quant(net.table(net.quant(net.global_average(x), GATE)), GATE)
    spread = net.view(gate, Along(8), Along(4, 0, 1, 4), Along(4, 0, 1, 4))
    graph = net.done(net.conv(net.quant(net.mul(x, spread), A4), 2))
    layers = [n for n in apply_all(graph, TO_LAYERS).nodes if isinstance(n, Layer)]
    assert [n.shape for n in layers] == [(8, 4, 4), (8, 4, 4), (8, 1, 1), (8, 4, 4), (2, 4, 4)]
    assert [sum(isinstance(i, (Times, LookUp)) for i in n.epilogue) for n in layers] == [0, 0, 1, 1, 0]


def test_a_slice_of_a_concat_is_made_of_slices_of_its_parts():
    net = Tables(4, 3, 3)
    x, y = net.quant("x", A4), net.quant(net.bn("x"), A4)
    both = net.concat(x, y)  # channels 0..7
    whole = [Along(3), Along(3)]
    across, within = net.view(both, Along(3, 2), *whole), net.view(both, Along(2, 5), *whole)
    turned = net.view(both, Along(8, 7, -1), *whole)
    graph = net.done(net.conv(across, 2), net.conv(within, 2), net.conv(turned, 2))
    rewritten = same(graph, SplitConcats().apply(graph))
    views = {n.outputs[0]: (n.inputs[0], n.along[0]) for n in rewritten.nodes if isinstance(n, View)}
    assert views[within] == (y, Along(2, 1)) and views[turned] == (both, Along(8, 7, -1))
    (made,) = (n for n in rewritten.nodes if n.op == "Concat" and n.outputs == [across])
    assert [views[t] for t in made.inputs] == [(x, Along(2, 2)), (y, Along(1, 0))]
