"""The cost model, int8 forms of weight grids, and the choice of families and formats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.choose_formats import ChooseFormats, allowed_by
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import UsageError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Quantizer
from mpcompile.ir.grid import bipolar, half_integer, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.families import family
from mpcompile.kernels.select import candidates
from mpcompile.kernels.weights import dot_form, dot_weights
from mpcompile.targets import load_target
from tests.passes import nets
from tests.passes.nets import A2, A4, Net
from tests.unit.strategies import grids

ZEN5, AVX2 = load_target("zen5"), load_target("x86-64-v3")


def part(grid, outputs=128, channels=128, kernel=3, groups=1):
    return ContractPart("x", np.full((outputs, channels // groups, kernel, kernel), grid.hi), grid, groups=groups)


def reads_sums(of, name):
    return family(name).sums(of)


def families(weights, activations, **shape):
    return [f for f, _ in candidates(part(weights, **shape), activations, ZEN5, (28, 28))]


# -- int8 forms --------------------------------------------------------------------------------------------------------
@given(grids())
def test_int8_form_gives_the_weights_back(grid):
    form = dot_form(grid)
    if form is None:
        assert grid.levels > 256 or grid.hi - grid.lo > 255 * grid.step
        return
    w8, m, o = dot_weights(grid.values, grid)
    assert w8.dtype == np.int8 and m >= 1 and (m, o) == form
    np.testing.assert_array_equal(m * w8.astype(np.int64) + o, grid.values)
    assert reads_sums(part(grid), "dot") == (o != 0)


@pytest.mark.parametrize(
    "grid, form",
    [
        (twos_complement(8), (1, 0)),
        (unsigned(8), (1, 128)),
        (unsigned(8, 128), (1, 0)),
        (unsigned(7), (1, 0)),
        (bipolar(), (1, 0)),
        (odd(7), (1, 0)),
        (odd(8), (2, 1)),
        (half_integer(8, 255), (2, 1)),
        (sign_magnitude(7), (1, 0)),
        (sign_magnitude(8), None),
    ],
)
def test_int8_forms(grid, form):
    assert dot_form(grid) == form


def test_weights_off_the_grid_are_refused():
    with pytest.raises(ValueError, match="not on"):
        dot_weights(np.array([2]), odd(8))
    with pytest.raises(ValueError, match="no room"):
        dot_weights(np.array([2]), sign_magnitude(8))


def test_who_needs_window_sums():
    assert reads_sums(part(bipolar()), "popcount") and not reads_sums(part(bipolar()), "dot")
    assert not reads_sums(part(twos_complement(2)), "popcount") and reads_sums(part(unsigned(8)), "dot")


# -- cost --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "w, a, first",
    [(1, 1, "popcount"), (1, 2, "popcount"), (2, 2, "popcount"), (3, 2, "dot"), (4, 4, "dot"), (8, 8, "dot")],
)
def test_crossover_is_where_it_was_measured(w, a, first):
    """Zen 5: popcount wins up to w·a = 4, and up to 2 where there are tiles."""
    grid = bipolar() if w == 1 else twos_complement(w)
    apart = replace(part(grid), strides=(2, 2))
    assert candidates(apart, unsigned(a), ZEN5, (28, 28))[0][0] == first
    assert families(grid, unsigned(a))[0] == (first if w * a <= 2 else "winograd")


@pytest.mark.parametrize(
    "w, a, first",
    [(1, 1, "lookup"), (1, 4, "lookup"), (2, 2, "lookup"), (3, 4, "dot"), (4, 2, "dot"), (4, 8, "dot"), (8, 8, "dot")],
)
def test_crossover_on_avx2(w, a, first):
    """3×3 kernels of what `dot` multiplies are tiles' where their stride is 1."""
    grid = bipolar() if w == 1 else twos_complement(w)
    apart = replace(part(grid), strides=(2, 2))
    assert candidates(apart, unsigned(a), AVX2, (28, 28))[0][0] == first
    tiled = "winograd" if first == "dot" else first
    assert candidates(part(grid), unsigned(a), AVX2, (28, 28))[0][0] == tiled


@pytest.mark.parametrize(
    "board, w, a, first",
    [
        ("rpi5", 1, 1, "popcount"),
        ("rpi5", 1, 2, "lookup"),
        ("rpi5", 1, 4, "lookup"),
        ("rpi5", 2, 2, "dot"),
        ("rpi4b", 1, 2, "popcount"),
        ("rpi4b", 1, 4, "lookup"),
        ("rpi4b", 2, 4, "lookup"),
        ("rpi4b", 4, 4, "dot"),
        ("rpi3b", 1, 1, "popcount"),
        ("rpi3b", 1, 2, "lookup"),
        ("rpi3b", 1, 8, "lookup"),
        ("rpi3b", 4, 4, "dot"),
    ],
)
def test_crossover_on_arm(board, w, a, first):
    """As llvm-mca counts whole layers (benchmarks/results/arm.md)."""
    grid = bipolar() if w == 1 else twos_complement(w)
    assert candidates(part(grid), unsigned(a), load_target(board), (28, 28))[0][0] == first


def test_dot_is_dearer_where_16_bits_do_not_hold_two_products():
    cost = lambda w, a, target: dict(candidates(part(w, kernel=5), unsigned(a), target, (28, 28)))["dot"]
    few, many = cost(twos_complement(4), 4, AVX2), cost(twos_complement(8), 8, AVX2)
    assert many / few == pytest.approx(51 / 25.7, rel=0.01)
    assert few < cost(twos_complement(7), 8, AVX2) < many <= cost(odd(8), 8, AVX2)
    assert cost(twos_complement(4), 4, ZEN5) == cost(twos_complement(8), 8, ZEN5)


def test_few_channels_do_not_fill_a_word():
    assert families(twos_complement(2), unsigned(2), channels=3, kernel=7)[0] == "dot"


def test_depthwise_is_the_only_family_of_a_depthwise_convolution():
    assert families(twos_complement(4), unsigned(4), groups=128) == ["depthwise"]


def test_families_that_cannot_compute_it_are_left_out():
    assert families(sign_magnitude(8), unsigned(2)) == ["popcount"]
    assert families(twos_complement(2), sign_magnitude(2), kernel=5) == ["dot"]  # such activations cannot be packed
    assert families(bipolar(), unsigned(1), groups=4) == ["dot"]  # no 0 to stand between the groups
    assert sorted(families(twos_complement(2), unsigned(1), groups=4)) == ["dot", "popcount"]


@pytest.mark.parametrize("grid", [odd(8), unsigned(8), sign_magnitude(8)])
def test_groups_take_weights_beyond_int8_without_window_sums(grid):
    assert families(grid, unsigned(4), groups=128) == ["depthwise"]
    assert "dot" in families(grid, unsigned(4), groups=4)
    assert not reads_sums(part(grid, groups=128), "depthwise") and not reads_sums(part(grid, groups=4), "dot")


def test_cost_grows_with_bits_outputs_and_pixels():
    cost = lambda w, a, size: dict(candidates(part(twos_complement(w)), unsigned(a), ZEN5, (size, size)))["popcount"]
    assert cost(2, 1, 14) < cost(2, 2, 14) < cost(4, 2, 14) < cost(4, 4, 14)
    assert 3.9 < cost(2, 2, 28) / cost(2, 2, 14) < 4.1


# -- formats -----------------------------------------------------------------------------------------------------------
def chosen(graph, forced=None, allowed=None):
    fused = apply_all(graph, TO_LAYERS)
    return fused, ChooseFormats(ZEN5, allowed or allowed_by(forced or {}, fused, ZEN5)).apply(fused)


def two_readers(wide: int = 128):
    net = Net(wide, 28, 28)
    x = net.quant("x", A2, "codes")
    low = net.conv(x, wide, 3, grid=bipolar(), called="low")
    high = net.conv(x, wide, 5, grid=twos_complement(8), called="high")
    return net.done(low, high)


def test_a_tensor_is_stored_as_each_reader_wants_it():
    _fused, got = chosen(two_readers())
    assert got.families["low"] == {(0, 0): "popcount"} and got.families["high"] == {(0, 0): "dot"}
    shape, grid = (128, 28, 28), A2.grid
    assert got.buffers["codes"] == [
        Buffer("codes", "codes", shape, grid, (2, 2, 2, 2)),
        Buffer("codes", "planes", shape, grid, (1, 1, 1, 1)),
        Buffer("codes", "sums", shape, grid, (1, 1, 1, 1), "planes"),
    ]
    assert got.buffers["x"] == [Buffer("x", "plain", shape)]
    assert got.cycles["low"][0, 0] > 0


def test_a_second_form_is_not_written_for_next_to_nothing():
    net = Net(128, 28, 28)
    x = net.quant("x", A2, "codes")
    tiny = net.conv(x, 8, 1, grid=bipolar(), called="tiny")
    high = net.conv(x, 128, 5, grid=twos_complement(8), called="high")
    _, got = chosen(net.done(tiny, high))
    assert [b.format for b in got.buffers["codes"]] == ["codes"]
    assert got.families["tiny"] == {(0, 0): "dot"}


def test_pools_and_skips_read_what_is_there():
    net = Net(128, 28, 28)
    x = net.quant("x", A2, "codes")
    y = net.conv(x, 128, 3, grid=bipolar())
    z = net.quant(net.add(y, x), A4, "sum")
    _, got = chosen(net.done(net.conv(net.pool(z), 8, 3, grid=bipolar())))
    assert [b.format for b in got.buffers["codes"]] == ["planes", "sums"]
    assert [b.format for b in got.buffers["sum"]] == ["codes"]


def test_float_tensors():
    net = Net(8, 6, 6)
    x = net.quant("x", A4)
    skip = net.affine(net.conv(x, 8), 2.0, 1.0)
    y = net.add(net.conv(net.quant(skip, A4), 8), skip)
    _fused, got = chosen(net.done(net.transpose(y, 1, 0, 2), skip))
    assert [b.format for b in got.buffers[skip]] == ["plain", "float"]
    assert [b.format for b in got.buffers[y]] == ["plain"]
    assert all(b.halo == (0, 0, 0, 0) for t in (skip, y) for b in got.buffers[t])


def test_every_reader_finds_its_form():
    for graph in (nets.resnet18(), nets.preactivation(), nets.inception(), nets.vgg_head()):
        for options in ({}, {"forced": {"*": "popcount"}}, {"forced": {"*": "dot"}}):
            fused, got = chosen(graph, **options)
            for layer in fused.nodes:
                for i, term in enumerate(layer.terms):
                    for j, p in enumerate(getattr(term, "parts", ())):
                        form = {"popcount": "planes", "dot": "codes"}[got.families[layer.name][i, j]]
                        main = next(b for b in got.buffers[p.input] if b.format == form)
                        assert all(h >= pad for h, pad in zip(main.halo, p.pads))
                        if reads_sums(p, got.families[layer.name][i, j]):
                            sums = Buffer(p.input, "sums", main.shape, main.grid, main.halo, form)
                            assert sums in got.buffers[p.input]


def test_forced_families():
    _, got = chosen(two_readers(), forced={"low": "dot"})
    assert got.families["low"] == {(0, 0): "dot"} and got.families["high"] == {(0, 0): "dot"}
    assert [b.format for b in got.buffers["codes"]] == ["codes"]
    with pytest.raises(
        UsageError, match="layer low cannot be computed by depthwise: popcount or winograd or dot would"
    ):
        chosen(two_readers(), forced={"low": "depthwise"})
    with pytest.raises(UsageError, match="lut is no kernel family"):
        chosen(two_readers(), forced={"low": "lut"})
    with pytest.raises(UsageError, match="no contraction middle"):
        chosen(two_readers(), forced={"middle": "dot"})


def test_a_contraction_gets_the_cheapest_family_that_it_is_allowed():
    assert list(dict(candidates(part(bipolar()), A2.grid, ZEN5, (28, 28)))) == ["popcount", "winograd", "dot"]
    for few in (("dot",), ("dot", "lookup")):
        _, got = chosen(two_readers(), allowed={"low": {(0, 0): few}})
        assert got.families["low"] == {(0, 0): "dot"} and [b.format for b in got.buffers["codes"]] == ["codes"]
    _, got = chosen(two_readers(), allowed={"high": {(0, 0): ("popcount",)}})
    assert got.families == {"low": {(0, 0): "popcount"}, "high": {(0, 0): "popcount"}, **_quantizers(got)}
    free, named = chosen(two_readers())[1], chosen(two_readers(), allowed={"low": {(1, 0): ("dot",)}, "x": {}})[1]
    assert free == named  # neither is a contraction of theirs
    with pytest.raises(
        UsageError, match="layer low cannot be computed by depthwise or lookup: popcount or winograd or dot"
    ):
        chosen(two_readers(), allowed={"low": {(0, 0): ("lookup", "depthwise")}})


def _quantizers(got):
    return {name: {} for name, families in got.families.items() if not families}


def test_a_star_is_for_what_can_have_it_and_a_name_wins_over_it():
    _, got = chosen(two_readers(), forced={"*": "popcount", "high": "dot"})
    assert got.families["low"] == {(0, 0): "popcount"} and got.families["high"] == {(0, 0): "dot"}
    _, got = chosen(two_readers(), forced={"*": "depthwise"})  # neither can
    assert got == chosen(two_readers())[1]


def test_a_quantizer_of_too_many_levels_for_codes_is_told_by_layer():
    from mpcompile.errors import ModelError

    net = Net(4, 5, 5)
    x = net.quant("x", Quantizer(sign_magnitude(8), 0.1, umin=-255))
    with pytest.raises(ModelError, match="layer wide: no kernel family"):
        chosen(net.done(net.conv(x, 4, called="wide")))
