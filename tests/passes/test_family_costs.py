"""Families and stored forms of whole graphs, by costs that are counted by hand.

Where costs are measured, what writing and reading a form costs besides decides between those that are close: a stored
value 1/16 cycle as codes, 1/16 for each of its planes, 1/8 its sum; to read one 1/16 as codes, 1/4 for each plane.
"""

from dataclasses import replace

import numpy as np
import pytest

from mpcompile.compiler.passes import choose_formats
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import UsageError
from mpcompile.ir.graph import FloatOp
from mpcompile.ir.grid import Grid, bipolar, odd, sign_magnitude, twos_complement, unsigned
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels import select
from mpcompile.kernels.select import expected_rates
from mpcompile.kernels.weights import dot_form
from mpcompile.targets import load_target
from tests.passes.nets import A2, A4, PIXELS, Net

ZEN5, AVX2 = load_target("zen5"), load_target("x86-64-v3")
SIZE = 128 * 28 * 28
CODES, PLANES, SUMS = SIZE / 16, 2 * SIZE / 16, SIZE / 8
"""Cycles of writing a tensor of that size and two bits."""


def choice(graph, target=ZEN5, *, measured=None, forced=None):
    """What is chosen, with each layer's family as `forced` says, where the families cost what `measured` says (of those
    that it knows; part, grid, output, family → cycles)."""
    fused, modelled = apply_all(graph, TO_LAYERS), select.candidates

    def candidates(part, grid, target, output):
        costs = dict(modelled(part, grid, target, output))
        seen = {name: measured(part, grid, output, name) for name in costs} if measured else {}
        costs |= {name: cycles for name, cycles in seen.items() if cycles is not None}
        return sorted(costs.items(), key=lambda item: item[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose_formats, "candidates", candidates)
        allowed = choose_formats.allowed_by(forced or {}, fused, target)
        return choose_formats.ChooseFormats(target, allowed).apply(fused)


def forms(found, tensor: str) -> list[str]:
    return [b.format for b in found.buffers[tensor]]


def family(found, layer: str) -> str:
    return found.families[layer][0, 0]


def measured(costs: dict[str, dict[str, float]]):
    """`costs` by kernel size, of which each layer here has its own, and family."""
    return lambda part, grid, output, name: costs[str(part.q.shape[2])].get(name, 1e12)


# -- which form a tensor is stored in ----------------------------------------------------------------------------------
def reader(grid, *, looked_at: bool = False):
    """A tensor of SIZE values of two bits, read by a 3×3 convolution, and, perhaps, by a pool."""
    net = Net(128, 28, 28)
    x = net.quant("x", A2, "t")
    outputs = [net.conv(x, 64, 3, grid=grid, called="conv")]
    if looked_at:
        outputs.append(net.quant(net.affine(net.pool(x), 2.0, 0.3), A4, "pooled"))
    return net.done(*outputs)


@pytest.mark.parametrize(
    "grid, looked_at, dearer",
    [
        (twos_complement(2), False, PLANES - CODES),
        (bipolar(), False, PLANES + SUMS - CODES),  # weights with an offset want the window's sums
        (twos_complement(2), True, PLANES + 2 * SIZE / 4 - CODES - SIZE / 16),
    ],
)
def test_planes_are_written_where_reading_them_saves_more_than_they_cost(grid, looked_at, dearer):
    for saved, expected in ((dearer - 1, "dot"), (dearer, "dot"), (dearer + 1, "popcount")):
        costs = measured({"3": {"popcount": 500_000 - saved, "dot": 500_000.0}})
        found = choice(reader(grid, looked_at=looked_at), measured=costs)
        assert family(found, "conv") == expected
        assert (
            forms(found, "t")
            == {
                "dot": ["codes"],
                "popcount": ["planes", "sums"] if grid == bipolar() else ["planes"],
            }[expected]
        )
        assert found.cycles["conv"][0, 0] == {"dot": 500_000.0, "popcount": 500_000 - saved}[expected]


def two_readers():
    """`low` and `high`, of other kernel sizes and paddings, read t; `low` by popcount wants its sums."""
    net = Net(128, 28, 28)
    x = net.quant("x", A2, "t")
    low = net.conv(x, 64, 3, grid=bipolar(), called="low")
    return net.done(low, net.conv(x, 64, 5, grid=twos_complement(2), called="high"))


@pytest.mark.parametrize(
    "low_by_codes, high_by_planes, expected",
    [
        # beside `codes` for both: planes and sums, 25088 cycles
        (PLANES + SUMS - 1, 1e9, {"low": "dot", "high": "dot"}),
        (PLANES + SUMS + 1, 1e9, {"low": "popcount", "high": "dot"}),
        # beside `planes` for both: codes, 6272 cycles
        (1e9, CODES - 1, {"low": "popcount", "high": "popcount"}),
        (1e9, CODES + 1, {"low": "popcount", "high": "dot"}),
    ],
)
def test_a_second_form_is_written_where_its_reader_saves_more_than_it_costs(low_by_codes, high_by_planes, expected):
    costs = {
        "3": {"popcount": 1000.0, "dot": 1000 + low_by_codes},
        "5": {"popcount": 1000 + high_by_planes, "dot": 1e3},
    }
    found = choice(two_readers(), measured=measured(costs))
    assert {name: family(found, name) for name in expected} == expected
    wanted = {"popcount": "planes", "dot": "codes"}
    assert {f for f in forms(found, "t") if f != "sums"} == {wanted[f] for f in expected.values()}
    assert ("sums" in forms(found, "t")) == (expected["low"] == "popcount")
    for name, kernel in (("low", "3"), ("high", "5")):
        assert found.cycles[name][0, 0] == costs[kernel][expected[name]]


def test_a_forms_halo_is_that_of_its_own_readers():
    """`low` pads by one, `high` by two."""
    apart = choice(two_readers(), forced={"low": "popcount", "high": "dot"})
    assert {(b.format, b.beside, b.halo) for b in apart.buffers["t"]} == {
        ("planes", "", (1,) * 4),
        ("sums", "planes", (1,) * 4),
        ("codes", "", (2,) * 4),
    }
    together = choice(two_readers(), forced={"*": "popcount"})
    assert {(b.format, b.halo) for b in together.buffers["t"]} == {("planes", (2,) * 4), ("sums", (2,) * 4)}


def test_what_only_pools_and_outputs_read_is_stored_as_codes():
    net = Net(16, 8, 8)
    x = net.quant("x", A2, "t")
    found = choice(net.done(net.quant(net.pool(x), A2, "y")))
    assert forms(found, "t") == ["codes"]
    assert all(b.halo == (0, 0, 0, 0) for b in found.buffers["t"])


def test_operators_in_float_do_not_hide_the_layers_behind_them():
    net = Net(16, 8, 8)
    turned = net.put(FloatOp, ["x"], net.shape("x"), op_type="Erf")
    found = choice(net.done(net.conv(net.quant(turned, A2, "t"), 32, grid=twos_complement(8), called="conv")))
    assert found.families["conv"] == {(0, 0): "dot"} and forms(found, "t") == ["codes"]
    assert forms(found, "x") == forms(found, turned) == forms(found, "conv") == ["plain"]


def test_measured_costs_replace_those_that_somebody_measured():
    """None: nobody did, and the model's stands."""
    modelled = choice(two_readers()).cycles
    some = lambda part, grid, output, name: 7.0 if part.q.shape[2] == 5 and name == "dot" else None
    found = choice(two_readers(), measured=some)
    assert found.cycles["high"][0, 0] == 7.0 and found.cycles["low"] == modelled["low"]


# -- what the model counts ---------------------------------------------------------------------------------------------
RATE = 4.0
COUNTS = replace(ZEN5, popcount_bitmacs_per_cycle=RATE, dot_macs_per_cycle=RATE)
"""A board that does so many of each a cycle."""
BYTE = tuple(1 << i for i in range(8))


def counted(name: str, weights, activations, channels=128, outputs=128, k=3, groups=1, size=10, target=COUNTS) -> float:
    """What one convolution by that family counts, an output pixel of its size² ones."""
    net = Net(channels, size, size)
    x = net.quant("x", activations, "t")
    y = net.conv(x, outputs, k, groups=groups, grid=weights, called="conv")
    found = choice(net.done(y), target, forced={"conv": name})
    assert found.families["conv"] == {(0, 0): name}
    return RATE * found.cycles["conv"][0, 0] / size**2


@pytest.mark.parametrize(
    "weights, activations, shape, cycles",
    [
        # outputs in eights · taps · bits of words · pairs of planes; 200 and 70 a pair for each output
        (twos_complement(2), A2, {}, 128 * 9 * 128 * 4 + 128 * (200 + 70 * 4)),
        (twos_complement(4), A2, {}, 128 * 9 * 128 * 8 + 128 * (200 + 70 * 8)),
        (twos_complement(2), A2, {"outputs": 21, "channels": 13}, 24 * 9 * 32 * 4 + 24 * (200 + 70 * 4)),
        (twos_complement(2), A2, {"channels": 65, "k": 1}, 128 * 1 * 128 * 4 + 128 * (200 + 70 * 4)),
        (
            bipolar(),
            A2,
            {},
            128 * 9 * 128 * 2 + 128 * (200 + 70 * 2) + RATE * 9 / 4,
        ),  # the window's sums: 1/4 cycle a tap
        # groups are spread over a dense kernel, and so are their sums
        (twos_complement(2), A2, {"groups": 2}, 128 * 9 * 128 * 4 + 128 * (200 + 70 * 4)),
        (unsigned(2, 1), A2, {"groups": 2}, 128 * 9 * 128 * 4 + 128 * (200 + 70 * 4) + RATE * 9 / 4),
    ],
)
def test_popcounts_work(weights, activations, shape, cycles):
    assert counted("popcount", weights, activations, **shape) == pytest.approx(cycles, rel=1e-12)


@pytest.mark.parametrize(
    "weights, shape, cycles",
    [
        # outputs in sixteens · taps · channels in fours; 40 for each output
        (twos_complement(4), {}, 128 * 9 * 128 + 128 * 40),
        (twos_complement(4), {"outputs": 21, "channels": 13}, 32 * 9 * 16 + 32 * 40),
        (twos_complement(4), {"k": 1, "channels": 4}, 128 * 1 * 4 + 128 * 40),
        (unsigned(8), {}, 128 * 9 * 128 + 128 * 40 + RATE * 9 / 4),
        # groups of whole vectors are left as they are, others are spread
        (twos_complement(4), {"groups": 4, "channels": 32, "outputs": 64}, 64 * 9 * 8 + 64 * 40),
        (unsigned(8, 3), {"groups": 4, "channels": 32, "outputs": 64}, 64 * 9 * 8 + 64 * 40),  # no sums
        (twos_complement(4), {"groups": 2, "channels": 12, "outputs": 32}, 32 * 9 * 12 + 32 * 40),
        (twos_complement(4), {"groups": 4, "channels": 32, "outputs": 32}, 32 * 9 * 32 + 32 * 40),
    ],
)
def test_dots_work(weights, shape, cycles):
    assert counted("dot", weights, A2, **shape) == pytest.approx(cycles, rel=1e-12)


@pytest.mark.parametrize(
    "weights, activations, groups, steps",
    [
        # 32767 // (2 · greatest level · greatest weight), 32768 // (2 · greatest level · −least weight): the lesser
        (twos_complement(4), A2, 1, 32768 // (2 * 3 * 8)),
        (unsigned(4), A4, 1, 32767 // (2 * 15 * 15)),
        (Grid(BYTE, 0, 0, 200), A2, 1, 32767 // (2 * 3 * 127)),  # less 73
        (Grid(BYTE, -200, -200, 0), A2, 1, 32768 // (2 * 3 * 128)),  # and 72
        (odd(8), A2, 1, 32768 // (2 * 3 * 128)),  # 2·w + 1
        (odd(8), PIXELS, 1, 0),
        (twos_complement(8), A2, 4, 32768 // (2 * 3 * 128)),
        (unsigned(8), A2, 4, 0),  # groups' weights are as they are
        (Grid(BYTE, -129, -129, 100), A2, 4, 0),
        (Grid(BYTE, -100, -100, 128), A2, 4, 0),
    ],
)
def test_dots_rate_is_that_of_so_many_sums_in_16_bits(weights, activations, groups, steps):
    """Four times the other; widened at 0.6 of a step."""
    target = replace(COUNTS, dot16_macs_per_cycle=4 * RATE)
    sums = RATE * 9 / 4 if dot_form(weights) != (1, 0) and groups == 1 else 0
    cycles = (128 * 9 * 128 // groups + 128 * 40) * ((1 + 0.6 / steps) / 4 if steps else 1) + sums
    assert counted("dot", weights, activations, groups=groups, target=target) == pytest.approx(cycles, rel=1e-12)


@pytest.mark.parametrize(
    "w, a, dot, looked_up",
    [
        # 16-bit sums of two products; look-ups of each digit, of which 3 widen 255 // (4 · greatest digit) sums
        (1, 1, 1 + 0.6 / 16383, 1 + 3 / 63),
        (2, 3, 1 + 0.6 / (16383 // (7 * 2)), 2 * (1 + 3 / 9)),
        (7, 8, 1.6, 7 * 2 * (1 + 3 / 4)),
        (8, 7, 1.6, 8 * 2 * (1 + 3 / 4)),
        (8, 8, 4.0, 8 * 2 * (1 + 3 / 4)),
        (3, 6, 1 + 0.6 / (16383 // (63 * 4)), 3 * 2 * (1 + 3 / 9)),
        (1, 5, 1 + 0.6 / (16383 // 31), 1 + 3 / 2),
    ],
)
def test_what_the_figures_alone_say(w, a, dot, looked_up):
    board = replace(AVX2, popcount_bitmacs_per_cycle=96.0, dot_macs_per_cycle=30.0)
    board = replace(board, dot16_macs_per_cycle=120.0, lookup_macs_per_cycle=100.0, lookup_widen=3.0)
    assert expected_rates(board, w, a) == pytest.approx(
        {
            "popcount": 96 / (w * a),
            "dot": 120 / dot,
            "lookup": 100 / looked_up,
        },
        rel=1e-12,
    )


@pytest.mark.parametrize(
    "k, outputs, looked_up, made",
    [
        # channels in fours · taps · vectors of 32 outputs · planes; a step in 21 is followed by a widening of three
        (3, 128, 32 * 9 * 4 * 2 * (1 + 3 / 21), 2 * 32 * 1.3),  # lines make some of their tables again
        (1, 128, 32 * 1 * 4 * 2 * (1 + 3 / 21), 2 * 32),
        (1, 17, 32 * 1 * 1 * 2 * (1 + 3 / 21), 2 * 32),
    ],
)
def test_look_ups_work(k, outputs, looked_up, made):
    """A step does four channels of 32 outputs; 100 for each output, in sixteens."""
    target = replace(AVX2, lookup_macs_per_cycle=RATE)
    found = counted("lookup", twos_complement(2), A2, outputs=outputs, k=k, target=target)
    assert found == pytest.approx((looked_up + made) * 4 * 32 + -(-outputs // 16) * 16 * 100)


def test_look_ups_sums_are_of_as_many_products_as_16_bits_hold():
    """9·496·15 are too many: two digits of two bits on AVX2; ARM widens sums of any length, and entries at once."""
    part = ContractPart("x", np.ones((32, 496, 3, 3)), bipolar())
    cost = lambda board: RATE * dict(select.candidates(part, unsigned(4), board, (1, 1)))["lookup"] - RATE * 9 / 4
    avx2 = replace(AVX2, lookup_macs_per_cycle=RATE)
    assert cost(avx2) == pytest.approx(248 * (9 * (1 + 3 / 21) + 2 * 1.3) * 4 * 32 + 32 * 100)
    rpi5 = replace(load_target("rpi5"), lookup_macs_per_cycle=RATE)
    assert cost(rpi5) == pytest.approx(124 * (9 * 2 + 2 * 1.3) * 4 * 16 + 32 * 100)


def test_look_ups_digits_hold_the_greatest_level():
    """16 has five bits: an entry of up to 4·31 is added to one more in 8 bits."""
    part = ContractPart("x", np.ones((32, 16, 1, 1)), bipolar())
    board = replace(AVX2, lookup_macs_per_cycle=RATE)
    cycles = RATE * dict(select.candidates(part, Grid(BYTE, 0, 0, 16), board, (1, 1)))["lookup"] - RATE / 4
    assert cycles == pytest.approx(4 * (1 + 3 / 2 + 2) * 4 * 32 + 32 * 100)


@pytest.mark.parametrize("strides", [(2, 1), (1, 2)])
def test_look_ups_make_the_tables_of_all_that_is_read(strides):
    """Two pixels an output, of which two lines make some again."""
    part = ContractPart("x", np.ones((32, 16, 2, 1)), bipolar(), strides)
    board = replace(AVX2, lookup_macs_per_cycle=RATE)
    cycles = RATE * dict(select.candidates(part, unsigned(2), board, (1, 1)))["lookup"] - RATE * 2 / 4
    assert cycles == pytest.approx(4 * (2 * (1 + 3 / 21) + 2 * 2 * 1.3) * 4 * 32 + 32 * 100)


def test_every_output_pixel_counts():
    """5 lines of 9: 3 of 5 are left by every second pixel."""
    net = Net(16, 5, 9)
    x = net.quant("x", A2, "t")
    graph = net.done(net.conv(x, 16, 1, 2, grid=twos_complement(4), called="conv"))
    found = choice(graph, COUNTS, forced={"conv": "dot"})
    assert RATE * found.cycles["conv"][0, 0] == pytest.approx(3 * 5 * (16 * 16 + 16 * 40))


def test_a_depthwise_convolutions_work():
    """Channels in sixteens, a quarter of dot's rate."""
    cycles = 48 * 9 * 4 + 40 * 40
    assert counted("depthwise", twos_complement(4), A2, 40, 40, groups=40) == pytest.approx(cycles, rel=1e-12)


@pytest.mark.parametrize(
    "size, channels, outputs, products, tiles, weights",
    [
        (9, 128, 128, 36, 9, 0.5),  # of 4×4 outputs
        (6, 128, 128, 16, 9, 0.5),  # of 2×2
        (28, 64, 32, 36, 49, 0.5),
        (32, 64, 32, 36, 64, 2 * 0.5),  # weights serve 28 tiles at least
        (12, 256, 128, 36, 9, 3.5),  # more weights than are stored
    ],
)
def test_transformed_tiles_work(size, channels, outputs, products, tiles, weights):
    """Of each product of a tile: channels · outputs, what reading or making a weight takes, and 6 for each channel and
    output, which are transformed."""
    slow = replace(AVX2, dot_macs_per_cycle=RATE, dot16_macs_per_cycle=0.0)
    cycles = products * (channels * outputs * (tiles + weights) + 6 * tiles * (channels + outputs))
    found = counted("winograd", twos_complement(4), PIXELS, channels, outputs, size=size, target=slow)
    assert found * size**2 == pytest.approx(cycles + size**2 * outputs * 40, rel=1e-12)


@pytest.mark.parametrize("groups, names", [(1, {"popcount", "dot", "lookup"}), (32, {"depthwise"})])
def test_every_line_and_every_column_counts(groups, names):
    part = ContractPart("x", np.ones((32, 32 // groups, 1, 1)), twos_complement(4), groups=groups)
    cycles = lambda *output: dict(select.candidates(part, A2.grid, AVX2, output))
    square = cycles(9, 9)
    assert set(square) == names
    for output in ((9, 6), (6, 9)):
        assert cycles(*output) == pytest.approx({name: 6 * cost / 9 for name, cost in square.items()})


def test_tiles_are_counted_along_both_axes():
    """Of maps of 9×6 and 6×9 3·3 tiles of 4×2 and 2×4 outputs each."""
    part = ContractPart("x", np.full((16, 16, 3, 3), 127), twos_complement(8), pads=(1, 1, 1, 1))
    slow = replace(AVX2, dot_macs_per_cycle=RATE, dot16_macs_per_cycle=0.0)
    for output in ((9, 6), (6, 9)):
        cycles = dict(select.candidates(part, PIXELS.grid, slow, output))["winograd"]
        work = 24 * (16 * 16 * (9 + 0.5) + 6 * 9 * (16 + 16)) + 54 * 16 * 40
        assert RATE * cycles == pytest.approx(work, rel=1e-12)


# -- who can -----------------------------------------------------------------------------------------------------------
def accepted(weights, channels=128, outputs=128, target=ZEN5, groups=1) -> set[str]:
    """The families that a convolution can be forced on."""
    found = set()
    for name in ("popcount", "dot", "lookup", "depthwise"):
        net = Net(channels, 6, 6)
        x = net.quant("x", A2, "t")
        graph = net.done(net.conv(x, outputs, grid=weights, groups=groups, called="conv"))
        try:
            choice(graph, target, forced={"conv": name})
        except UsageError:
            continue
        found.add(name)
    return found


def test_images_are_not_packed():
    assert accepted(twos_complement(2), channels=4) == {"dot"}
    assert accepted(twos_complement(2), channels=5) == {"dot", "popcount"}


def test_lookups_fill_vectors():
    """Of 32 output channels, or whole multiples of 64, from as many input channels as can be packed."""
    for outputs, can in (
        (4, False),
        (5, False),
        (16, False),
        (17, True),
        (32, True),
        (33, False),
        (64, True),
        (128, True),
    ):
        assert ("lookup" in accepted(bipolar(), outputs=outputs, target=AVX2)) == can, outputs
    for outputs, can in ((4, False), (5, True), (33, True)):  # ARM's are of 16
        assert ("lookup" in accepted(bipolar(), outputs=outputs, target=load_target("rpi5"))) == can, outputs
    assert "lookup" not in accepted(bipolar(), channels=4, target=AVX2)
    assert "lookup" in accepted(bipolar(), channels=5, target=AVX2)
    assert "lookup" not in accepted(bipolar(), target=replace(AVX2, lookup_macs_per_cycle=0.0))
    assert "lookup" not in accepted(twos_complement(2), groups=2, target=AVX2)


def test_planes_are_packed_where_patterns_count_up():
    """From any of them on: −3 of three bits is 5."""
    part = ContractPart("x", np.ones((16, 16, 3, 3)), twos_complement(2))
    for grid, can in ((twos_complement(3, narrow=True), True), (sign_magnitude(1), False)):
        assert ("popcount" in dict(select.candidates(part, grid, ZEN5, (8, 8)))) == can


def test_codes_are_bytes():
    """Of 257 levels none can be stored, of 256 any."""
    nine = tuple(1 << i for i in range(9))
    for levels, weights, can in (
        (256, np.ones((32, 16, 3, 3)), {"popcount", "dot", "lookup", "winograd"}),
        (257, np.ones((32, 16, 3, 3)), {"popcount"}),
        (256, np.ones((32, 1, 3, 3)), {"depthwise"}),
        (257, np.ones((32, 1, 3, 3)), {"popcount"}),
    ):
        part = ContractPart("x", weights, twos_complement(2), groups=32 if weights.shape[1] == 1 else 1)
        assert set(dict(select.candidates(part, Grid(nine, 0, 0, levels - 1), AVX2, (8, 8)))) == can, levels


def test_weights_of_nine_bits_are_spread_over_planes_or_groups():
    assert accepted(sign_magnitude(8)) == accepted(sign_magnitude(8), target=AVX2) == {"popcount"}
    assert accepted(sign_magnitude(8), groups=2) == {"dot", "popcount"}
    assert accepted(sign_magnitude(8), groups=4) == {"dot", "popcount"}


def test_groups_are_spread_only_over_a_zero():
    assert accepted(twos_complement(2), groups=2) == {"dot", "popcount"}
    assert accepted(bipolar(), groups=2) == {"dot"}
    assert accepted(twos_complement(2), groups=128) == {"depthwise"}
    assert accepted(twos_complement(2), channels=2, outputs=2, groups=2) == {"depthwise"}
    assert accepted(twos_complement(2), channels=1, outputs=1) == {"dot"}
    assert accepted(twos_complement(2), channels=64, groups=64) == {"dot", "popcount"}  # two outputs a group
