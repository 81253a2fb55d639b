"""What becomes one layer: counted on known networks, and looked at instruction by instruction."""

from __future__ import annotations

import numpy as np
import pytest

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError
from mpcompile.ir.graph import Quantizer, TensorType
from mpcompile.ir.grid import bipolar, odd, twos_complement, unsigned
from mpcompile.ir.layer import ContractTerm, Fma, Layer, Plus, PoolTerm, Round, Value, ViewTerm
from mpcompile.reference.interpret import interpret
from mpcompile.reference.run import run
from tests.passes import nets
from tests.passes.nets import A2, A4, Net


def fuse(graph):
    return apply_all(graph, TO_LAYERS)


def layers(graph):
    return [n for n in graph.nodes if isinstance(n, Layer)]


def kinds(layer):
    return [type(i).__name__ for i in layer.epilogue]


def agrees(graph, outputs=None):
    """The fused graph's outputs, against the operators'; returns the fused graph."""
    fused = fuse(graph)
    rng = np.random.default_rng(1)
    inputs = {t: rng.uniform(-1, 3, graph.types[t].shape).astype(np.float32) for t in graph.inputs}
    got, wanted = run(fused, inputs), interpret(graph, inputs)
    for t in graph.outputs:
        np.testing.assert_allclose(got[t], wanted[t], rtol=1e-5, atol=1e-5)
    return fused


# -- networks ----------------------------------------------------------------------------------------------------------
def test_resnet18_has_two_layers_a_block():
    fused = fuse(nets.resnet18())
    assert all(isinstance(n, Layer) for n in fused.nodes)
    assert len(fused.nodes) == 1 + 1 + 1 + 2 * 8 + 1 + 1  # input, stem, pool, blocks, global pool, dense
    downsampling = [n for n in fused.nodes if sum(isinstance(t, ContractTerm) for t in n.terms) == 2]
    assert len(downsampling) == 3


def test_resnet18_writes_a_float_skip_only_where_the_next_block_reads_one():
    fused = fuse(nets.resnet18())
    views = [t.input for n in fused.nodes for t in n.terms if isinstance(t, ViewTerm)]
    floats = [t for n in layers(fused) for t in n.outputs if not fused.types[t].quantizer]
    identities = views[1:]  # the first is the model's input
    assert len(identities) == 5 and len(floats) == 5 + 1 + 1 + 1  # before the first pool, the global pool; the output
    assert set(identities) < set(floats)


def test_preactivation_network_writes_skip_and_codes_from_one_layer():
    fused = agrees(nets.preactivation())
    contract = [n for n in layers(fused) if isinstance(n.terms[0], ContractTerm) or len(n.terms) > 1]
    assert len(contract) == 6
    assert [len(n.results) for n in contract] == [2, 1, 2, 1, 1, 1]


def test_inception_network_has_no_copy():
    fused = fuse(nets.inception())
    assert all(isinstance(n, Layer) for n in fused.nodes)
    heads = [n for n in layers(fused) if isinstance(n.terms[0], ContractTerm) and len(n.inputs) > 1]
    dense = heads.pop()
    assert [len(t.parts) for t in dense.terms] == [4]  # all four averages are on one grid
    assert len(heads) == 4  # the second block's 1×1 convolutions
    for head in heads:  # spacings 0.5, 0.25, 0.75, 0.5: slices of one scale are one term
        assert sorted(len(t.parts) for t in head.terms) == [1, 1, 2]
        assert len(head.inputs) == 4


def test_dense_layer_reads_the_map_that_was_flattened():
    fused = agrees(nets.vgg_head())
    assert all(isinstance(n, Layer) for n in fused.nodes)
    assert [n.shape for n in layers(fused)] == [(3, 4, 4), (8, 4, 4), (8, 2, 2), (16, 1, 1), (10, 1, 1)]
    dense = layers(fused)[3].terms[0].parts[0]
    assert dense.q.shape == (16, 8, 2, 2)


# -- one layer ---------------------------------------------------------------------------------------------------------
def test_conv_bn_relu_quantize_is_one_fma():
    net = Net(4, 5, 5)
    y = net.bn(net.bn(net.conv(net.quant("x", A4), 6, bias=True)))
    y = net.quant(net.clip(y), called="q")
    layer = layers(agrees(net.done(net.conv(y, 2, called="y"))))[1]
    assert kinds(layer) == ["Load", "Fma", "Round"]
    assert (layer.epilogue[2].lo, layer.epilogue[2].hi) == (0, 3)


def test_constants_are_folded_in_float64_and_rounded_once():
    net = Net(4, 3, 3)
    y = net.conv(net.quant("x", A4), 3, 1, scale=np.array([0.1, 0.2, 0.3]))
    y = net.quant(net.affine(y, [0.7, 1.1, -0.3], [0.01, 0.02, 0.03]), Quantizer(unsigned(3, 2), 0.3, 2))
    fma = layers(fuse(net.done(net.conv(y, 2))))[1].epilogue[1]
    scale = np.array([0.1, 0.2, 0.3]) * A4.scale * np.array([0.7, 1.1, -0.3]) / 0.3
    np.testing.assert_array_equal(fma.a, scale.astype(np.float32))
    np.testing.assert_array_equal(fma.b, (np.array([0.01, 0.02, 0.03]) / 0.3 + 2).astype(np.float32))


@pytest.mark.parametrize(
    "q, clamp, bounds",
    [
        (Quantizer(unsigned(4), 0.5), False, (0, 15)),  # ReLU is the quantizer's own bound
        (Quantizer(unsigned(4, 3), 0.5, 3), True, (0, 15)),  # level 3 is real 0
        (Quantizer(twos_complement(4), 0.5, umin=-8), True, (-8, 7)),
        (Quantizer(unsigned(4, 3), 0.5, 3, zero_first=False), True, (-3, 12)),
        (Quantizer(unsigned(4), 0.5, zero_first=False), False, (0, 15)),
        (Quantizer(bipolar(), 1.0, 0, 0, "sign"), True, (0, 1)),
    ],
)
def test_relu_goes_into_the_bounds_of_the_round_where_that_is_the_same(q, clamp, bounds):
    net = Net(4, 5, 5)
    y = net.quant(net.clip(net.conv(net.quant("x", A4), 6)), q)
    layer = layers(agrees(net.done(net.conv(y, 2))))[1]
    assert ("Clamp" in kinds(layer)) == clamp
    assert (layer.epilogue[-1].lo, layer.epilogue[-1].hi) == bounds


def test_relu6_lowers_the_topmost_level():
    net = Net(4, 5, 5)
    y = net.quant(net.clip(net.conv(net.quant("x", A4), 6), 0, 1.6), Quantizer(unsigned(4), 0.5))
    layer = layers(agrees(net.done(net.conv(y, 2))))[1]
    assert kinds(layer) == ["Load", "Fma", "Round"] and (layer.epilogue[2].lo, layer.epilogue[2].hi) == (0, 3)


def test_input_quantizer_divides_as_the_standard_says():
    net = Net(3, 4, 4)
    layer = layers(fuse(net.done(net.conv(net.quant("x", Quantizer(unsigned(8, 3), 0.1, 3)), 2))))[0]
    assert kinds(layer) == ["Load", "Divide", "Fma", "Round"]
    assert (layer.epilogue[2].a, layer.epilogue[2].b) == (1, 3)


def test_two_quantizers_of_the_input_are_one_layer():
    net = Net(3, 4, 4)
    y = net.add(net.conv(net.quant("x", A4), 2), net.conv(net.quant("x", A2), 2))
    fused = agrees(net.done(y))
    assert [len(n.results) for n in layers(fused)] == [2, 1]


def test_products_are_never_operands_of_a_plus():
    net = Net(3, 4, 4)
    x, z = net.quant("x", A4), net.quant("x", A2)
    y = net.add(net.add(x, z), net.affine(net.conv(x, 3), 2.0, 0.0))
    fused = agrees(net.done(net.conv(net.quant(y), 2), net.conv(x, 2), net.conv(z, 2)))
    for layer in layers(fused):
        for instr in layer.epilogue:
            if isinstance(instr, Plus):
                for operand in (layer.epilogue[instr.x], layer.epilogue[instr.y]):
                    assert not (isinstance(operand, Fma) and not isinstance(operand.b, int) and not np.any(operand.b))


def test_add_of_codes_rounds_like_an_executor_does():
    """f32(q1·s1) + f32(q2·s2), then the division: ties included, bit by bit."""
    net = Net(5, 4, 4)
    s1, s2 = float(np.float32(0.1)), float(np.float32(0.3))
    a, b = Quantizer(twos_complement(8), s1, umin=-128), Quantizer(twos_complement(8), s2, umin=-128)
    x, z = net.quant("x", a, "a"), net.quant(net.affine("x", 3.0, 0.0), b, "b")
    out = Quantizer(twos_complement(8), float(np.float32(0.2)), umin=-128)
    y = net.quant(net.add(x, z), out, "y")
    fused = fuse(net.done(net.conv(y, 2), net.conv(x, 2), net.conv(z, 2)))
    x = np.random.default_rng(3).normal(0, 4, (5, 4, 4)).astype(np.float32)
    got = run(fused, {"x": x})
    real = got["a"].astype(np.float32) * np.float32(s1) + got["b"].astype(np.float32) * np.float32(s2)
    np.testing.assert_array_equal(got["y"], np.clip(np.rint(real / np.float32(0.2)), -128, 127))


def test_downsample_convolution_is_a_second_term_and_one_fma():
    net = Net(4, 6, 6)
    x = net.quant("x", A4)
    y = net.add(net.bn(net.conv(x, 5)), net.bn(net.conv(x, 5, 1)))
    layer = layers(agrees(net.done(net.conv(net.quant(net.clip(y)), 2))))[1]
    assert [type(t) for t in layer.terms] == [ContractTerm, ContractTerm]
    assert kinds(layer) == ["Load", "Load", "Fma", "Fma", "Fma", "Round"]
    assert layer.inputs == ["quantize0"]


def test_quantizer_in_front_of_an_add_keeps_its_rounding():
    net = Net(4, 6, 6)
    x = net.quant("x", A4)
    y = net.quant(net.conv(x, 4), A4)
    layer = layers(agrees(net.done(net.conv(net.quant(net.add(y, x), A2), 2))))[1]
    assert [type(i) for i in layer.epilogue if isinstance(i, (Round, Value))] == [Round, Value, Round]
    assert {type(t) for t in layer.terms} == {ContractTerm, ViewTerm} and len(layer.terms) == 2


def test_pools_work_on_integers():
    net = Net(4, 6, 6)
    x = net.quant("x", A4)
    y = net.add(net.pool(x, "avg"), net.pool(x, "max"))
    fused = agrees(net.done(y, net.conv(net.quant(y), 3)))
    layer = layers(fused)[1]
    assert [t.kind for t in layer.terms] == ["sum", "max"]
    assert fused.types[layer.terms[0].input].quantizer == A4


def test_floor_of_an_average_is_exact():
    """Σ q / 2^k on the input's own grid, as TruncAvgPool has it: noise below a whole number would be off by one."""
    q8 = Quantizer(unsigned(8), float(np.float32(0.037)))
    net = Net(4, 7, 7)
    average = net.put(
        nets.Pooling,
        [net.quant("x", q8, "q")],
        (4, 1, 1),
        kind="avg",
        kernel=(7, 7),
        strides=(1, 1),
        pads=((0, 0), (0, 0)),
    )
    total = net.affine(average, 49.0, 0.0)
    y = net.quant(total, Quantizer(unsigned(8), q8.spacing * 64, rounding="floor"), "t")
    fused = fuse(net.done(net.conv(y, 2, 1)))
    for seed in range(20):
        got = run(fused, {"x": np.random.default_rng(seed).uniform(0, 9, (4, 7, 7)).astype(np.float32)})
        np.testing.assert_array_equal(got["t"].reshape(-1), np.minimum(got["q"].sum((1, 2)) // 64, 255))


def test_conv1d_and_its_pool_are_maps_of_height_1():
    net = Net(3, 12)
    y = net.pool(net.quant(net.conv(net.quant("x", A4), 4, 3)), "max", 3, 2, 1)
    fused = agrees(net.done(net.conv(y, 2)))
    conv, pool = layers(fused)[1:3]
    assert conv.shape == (4, 1, 12) and conv.terms[0].parts[0].q.shape == (4, 3, 1, 3)
    assert conv.terms[0].parts[0].pads == (0, 1, 0, 1)
    assert isinstance(pool.terms[0], PoolTerm) and (pool.terms[0].kernel, pool.terms[0].pads) == ((1, 3), (0, 1, 0, 1))


def test_quantized_output_is_written_in_real_numbers_and_as_codes():
    net = Net(3, 4, 4)
    y = net.quant(net.conv(net.quant("x", A4), 4), A2, "mid")
    fused = agrees(net.done("mid", net.conv(y, 2)))
    assert layers(fused)[1].outputs == ["mid.codes", "mid"]
    assert fused.types["mid"] == TensorType((4, 4, 4)) and fused.types["mid.codes"].quantizer == A2


def test_what_no_output_needs_is_gone():
    net = Net(3, 4, 4)
    x = net.quant("x", A4)
    net.conv(net.quant(net.conv(x, 4)), 5)
    fused = agrees(net.done(net.conv(x, 2, called="y")))
    assert [n.name for n in fused.nodes] == ["quantize0", "y"]


# -- grouped convolutions over slices ----------------------------------------------------------------------------
@pytest.mark.parametrize("grid", [twos_complement(3), bipolar(), odd(8), unsigned(8, 7), unsigned(8)])
def test_grouped_convolution_over_slices_that_cross_its_groups(grid):
    net = Net(6, 5, 5)
    x = net.concat(net.quant(net.conv(net.quant("x", A4), 4), A2), net.quant("x", A4))
    fused = agrees(net.done(net.conv(x, 6, 3, 1, 2, grid, scale=np.array([0.01]))))
    assert all(isinstance(n, Layer) for n in fused.nodes)


# -- refusals ----------------------------------------------------------------------------------------------------------
def test_input_that_is_not_quantized_is_refused_by_name():
    net = Net(3, 4, 4)
    with pytest.raises(ModelError, match=r"node conv1 \(Conv\).*input affine0 is not quantized"):
        fuse(net.done(net.conv(net.affine("x", 2.0, 1.0), 2)))


def test_sums_beyond_int32_are_refused_by_name():
    net = Net(70000, 1, 1)
    x = net.quant("x", Quantizer(unsigned(8), 0.1))
    graph = net.done(net.conv(x, 1, 1, grid=unsigned(8), called="wide"))
    graph.nodes[-1].weight.q[:] = 255
    with pytest.raises(ModelError, match=r"node wide \(Conv\) may sum up to 4551750000"):
        fuse(graph)


def test_scales_beyond_float32_are_refused_by_name():
    net = Net(3, 4, 4)
    y = net.affine(net.conv(net.quant("x", A4), 2), 1e42, 0.0)
    with pytest.raises(ModelError, match=r"node affine2 \(Affine\).*leaves float32"):
        fuse(net.done(y))


def test_shapes_of_four_axes_are_refused_by_name():
    net = Net(2, 3, 4, 5)
    with pytest.raises(ModelError, match=r"node quantize0 \(Quantize\) works on quantize0 of shape \(2, 3, 4, 5\)"):
        fuse(net.done(net.quant("x")))
