"""What families say of a part that they pack, counted by hand: the numbers beside its sums, how far these reach, which form
they have, and what records are told apart by. numpy, and the names of instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpcompile.ir.formats import Buffer, channel_pad
from mpcompile.ir.grid import Grid, bipolar, odd, twos_complement, unsigned
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.families import families, popcount_bytes
from mpcompile.kernels.families import family as family_of
from mpcompile.kernels.families.family import Given
from mpcompile.kernels.families.lookup_form import Lookup
from mpcompile.kernels.families.popcount_bytes import ByteCount
from mpcompile.kernels.families.popcount_words import Slots
from mpcompile.schedules import architecture_of
from mpcompile.targets import load_target

THREES = Grid((3, 6), -3, -3, 6, 3)
"""Four levels, in steps of 3 from −3."""


def packed(family: str, target: str, weights, grid_w: Grid, grid_a: Grid, *, padded: int = 0, groups: int = 1):
    """`weights`: [O, C, KH, KW], or [O, C] of a 1×1 kernel. `padded`: output channels computed; 0: as codes have them."""
    q = np.array(weights).reshape(*np.shape(weights), *(1,) * (4 - np.ndim(weights)))
    record = family_of(family)
    part = ContractPart("x", q, grid_w, groups=groups)
    data = Buffer("x", record.reads, (q.shape[1] * groups, 8, 8), grid_a)
    channels = padded or channel_pad(len(q))
    return record.describe(Given(part, data, len(q), channels, (8, 8), architecture_of(load_target(target))))


def shape(
    family: str, target: str, weights: tuple[int, ...], grid_a: Grid = unsigned(2), grid_w: Grid = odd(2), **more
):
    return packed(family, target, np.full(weights, grid_w.hi), grid_w, grid_a, **more).spec.weight_shape


# -- numbers beside the sums -------------------------------------------------------------------------------------------
def test_popcounts_numbers():
    """Planes 2 and 4 less 3; 1 and 2 less 1: five channels reach 5·(1 + 2)·(2 + 4 + 3)."""
    for target in ("zen5", "x86-64-v3"):
        found = packed("popcount", target, [[3, -3, 1, -1, 1]] * 2, odd(2), unsigned(2, 1))
        assert (found.spec.multiplier, found.spec.offset, found.base, found.constant) == (1, -3, -1, 0)
        assert found.reach == 5 * 3 * 9 and found.spec.groups == 1
        assert packed("popcount", target, [[3, -3, 1, -1, 1]], odd(2), unsigned(2, 1)).reach == found.reach
    spread = packed("popcount", "zen5", [[1, -1, 0, 1, 1]] * 2, twos_complement(2), unsigned(2, 1), groups=2)
    assert spread.reach == 10 * 3 * 3 and spread.spec.groups == 1 and spread.spec.offset == 0


def test_dots_numbers():
    """3, −5 = 2·1 + 1, 2·−3 + 1."""
    found = packed("dot", "x86-64-v3", [[3, -5], [1, 1]], odd(8), THREES)
    assert (found.spec.multiplier, found.spec.offset, found.base) == (2 * 3, 1 * 3, -3)
    assert found.reach == 3 * (6 * (1 + 3) + 3 * 2)
    assert np.all(found.constant == 0)


def test_dots_levels_less_128():
    """Stored as signed bytes: what is taken off each is added again."""
    found = packed("dot", "rpi5", [[3, -5], [1, 9]], odd(8), odd(8))
    assert found.spec.instr.shift == 128
    np.testing.assert_array_equal(found.constant, [2 * 2 * 128 * (1 - 3), 2 * 2 * 128 * (0 + 4)])
    assert np.all(packed("dot", "rpi5", [[3, -5], [1, 9]], odd(8), unsigned(7)).constant == 0)
    many = packed("dot", "rpi5", np.full((1, 300), 127), twos_complement(8), unsigned(8))
    np.testing.assert_array_equal(many.constant, [128 * 127 * 300])  # no sum of bytes


def test_lookups_numbers():
    found = packed("lookup", "x86-64-v3", [[3, -3, 1, -1, 1]] * 20, odd(2), THREES)
    assert (found.spec.multiplier, found.spec.offset, found.base, found.constant) == (3, -3 * 3, -3, 0)
    assert found.reach == 5 * 3 * (2 + 4 + 3) * 3


def test_depthwise_numbers():
    found = packed("depthwise", "x86-64-v3", [[[[1, -3]]], [[[3, 0]]]], twos_complement(3), THREES, groups=2)
    assert (found.spec.multiplier, found.spec.offset, found.base, found.constant) == (3, 0, -3, 0)
    assert found.reach == 3 * 3 * (1 + 3) and found.spec.groups == 2
    np.testing.assert_array_equal(found.weight, [[[1, 3, 0, 0], [-3, 0, 0, 0]]])
    assert found.weight.dtype == np.int16 and found.spec.weight_dtype == "int16"


def test_specs_have_their_parts_window():
    """Nothing like the other: a kernel of 3×2, every second line, every third column of it."""
    for name, groups in (("popcount", 1), ("dot", 1), ("lookup", 1), ("depthwise", 32)):
        q = np.ones((32, 32 // groups, 3, 2), np.int64)
        part = ContractPart("x", q, twos_complement(2), (2, 1), (1, 2, 3, 4), (5, 6), groups)
        data = Buffer("x", family_of(name).reads, (32, 8, 8), unsigned(2))
        spec = (
            family_of(name).describe(Given(part, data, 32, 32, (8, 8), architecture_of(load_target("x86-64-v3")))).spec
        )
        assert (spec.kernel, spec.strides, spec.dilations) == ((3, 2), (2, 1), (5, 6))
        assert (spec.data, spec.pads, spec.groups) == (data, (1, 2, 3, 4), groups)


# -- which form weights have -------------------------------------------------------------------------------------------
def test_weights_of_popcount():
    """Words of 32 channels, of 16 outputs; 4 bytes, or 4 of low and 4 of high nibbles, of a vector's outputs."""
    assert shape("popcount", "zen5", (17, 5, 3, 1)) == (2, 3, 1, 1, 2, 16)
    assert shape("popcount", "zen5", (17, 33, 1, 1)) == (2, 1, 1, 2, 2, 16)
    assert shape("popcount", "x86-64-v3", (17, 5, 3, 1)) == (4, 2, 3, 1, 2, 8, 4)
    assert shape("popcount", "rpi5", (17, 5, 1, 3)) == (2, 2, 1, 3, 1, 16, 4)


@pytest.mark.parametrize(
    "target, channels, steps",
    [
        # the most channels that a step takes, as often as the steps are many
        ("x86-64-v3", 37, 40 // 4),
        ("rpi5", 37, 48 // 4),  # four steps of four are one
        ("rpi5", 5, 16 // 4),
        ("rpi5", 4, 1),  # of an image one
        ("rpi5", 3, 1),
        ("rpi4b", 37, 48 // 2),  # eight of two
        ("rpi4b", 4, 2),
        ("rpi4b", 1, 2),
        ("rpi4b", 5, 16 // 2),
    ],
)
def test_steps_of_dot(target, channels, steps):
    assert shape("dot", target, (16, channels, 5, 1))[1:4] == (5, 1, steps)


def test_steps_of_sixteen_bits_take_two_channels():
    assert shape("dot", "x86-64-v3", (17, 37, 1, 2), unsigned(8), odd(8)) == (4, 1, 2, 19, 8, 2)
    assert shape("dot", "x86-64-v3", (17, 1, 1, 2), unsigned(8), odd(8)) == (4, 1, 2, 1, 8, 2)


def test_groups_of_dot():
    """They stay where they fill vectors, none is wider than it was, and a step is one."""
    whole: dict[str, Any] = dict(weights=(48, 8, 1, 1), grid_w=twos_complement(4), groups=3)
    assert shape("dot", "rpi5", **whole) == (3, 1, 1, 2, 16, 4)
    assert packed("dot", "rpi5", np.ones((48, 8)), twos_complement(4), unsigned(2), groups=3).spec.groups == 3
    assert shape("dot", "rpi5", (32, 8, 1, 1), grid_w=twos_complement(4), groups=2) == (2, 1, 1, 2, 16, 4)
    assert shape("dot", "rpi5", **{**whole, "weights": (48, 12, 1, 1)}) == (3, 1, 1, 3, 16, 4)
    assert shape("dot", "rpi5", **whole, padded=64) == (4, 1, 1, 32 // 4, 16, 4)  # 24 channels, of whole steps
    assert shape("dot", "rpi5", **{**whole, "weights": (48, 6, 1, 1)}) == (3, 1, 1, 32 // 4, 16, 4)
    assert shape("dot", "rpi5", **{**whole, "weights": (24, 8, 1, 1)}) == (2, 1, 1, 32 // 4, 16, 4)
    assert shape("dot", "rpi5", (48, 8, 1, 1)) == (3, 1, 1, 16 // 4, 16, 4)


def test_weights_of_lookup():
    """Fours of channels: of two vectors of 16 outputs; of one, in one table or two."""
    assert shape("lookup", "x86-64-v3", (20, 37, 3, 1)) == (1, 2, 3, 1, 12, 16, 2)
    assert shape("lookup", "x86-64-v3", (64, 37, 1, 1)) == (2, 2, 1, 1, 12, 16, 2)
    assert shape("lookup", "rpi4b", (20, 37, 3, 1)) == (2, 2, 3, 1, 12, 16, 1)
    assert shape("lookup", "rpi5", (20, 37, 3, 1)) == (2, 2, 3, 1, 6, 16, 2)


def test_tables_indices():
    """Bit k of an index is channel k's; in the second table it is 16 more."""
    ones = np.zeros((32, 8), np.int64)
    ones[1, [0, 2]], ones[17, 5] = 1, 1
    weight = packed("lookup", "x86-64-v3", ones, unsigned(1), unsigned(2)).weight
    assert weight[0, 0, 0, 0, 0, 1, 0] == 5 and weight[0, 0, 0, 0, 1, 1, 1] == 2 and weight.sum() == 7
    weight = packed("lookup", "rpi5", ones, unsigned(1), unsigned(2)).weight
    assert weight[0, 0, 0, 0, 0].tolist() == [[0, 16], [5, 16]] + [[0, 16]] * 14
    assert weight[1, 0, 0, 0, 0].tolist() == [[0, 16], [0, 18]] + [[0, 16]] * 14


# -- what records are told apart by ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "family, target, grid_w, grid_a, step",
    [
        ("popcount", "zen5", twos_complement(3), unsigned(2), "3x2 planes"),
        ("popcount", "x86-64-v3", twos_complement(3), unsigned(2), "3x2 bytes"),
        ("popcount", "zen5", bipolar(), unsigned(2), "1x2 planes"),
        ("popcount", "x86-64-v3", bipolar(), unsigned(2), "1x2 bytes"),
        ("dot", "x86-64-v3", twos_complement(3), unsigned(2), "maddubs16_256"),
        ("dot", "x86-64-v3", odd(8), unsigned(8), "madd_256"),
        ("dot", "zen5", odd(8), unsigned(8), "vnni_512"),
        ("lookup", "x86-64-v3", twos_complement(3), unsigned(2), "3 planes 1x2 bits"),
        ("lookup", "x86-64-v3", bipolar(), unsigned(8), "1 planes 2x4 bits"),
        ("lookup", "x86-64-v3", bipolar(), Grid((1, 2, 4, 8, 16), 0, 0, 16), "1 planes 1x5 bits"),
    ],
)
def test_steps_of_records(family, target, grid_w, grid_a, step):
    found = packed(family, target, np.full((32, 16), grid_w.hi), grid_w, grid_a)
    assert family_of(family).step(found.spec) == step


@pytest.mark.parametrize("level, step", [(128, "maddubs_256"), (129, "madd_256")])
def test_steps_are_exact_up_to_the_greatest_level(level, step):
    """2·128·−128 fits 16 bits."""
    levels = Grid(tuple(1 << i for i in range(8)), 0, 0, level)
    found = packed("dot", "x86-64-v3", np.full((32, 16), -128), twos_complement(8), levels)
    assert family_of("dot").step(found.spec) == step


def test_steps_of_records_of_depthwise_layers():
    depthwise = packed("depthwise", "zen5", np.ones((16, 1, 3, 3)), twos_complement(8), unsigned(8), groups=16)
    assert family_of("depthwise").step(depthwise.spec) == "int16"


def test_winograds_numbers():
    """3, −5 = 2·1 + 1, 2·−3 + 1, in 3×3 kernels of 16 channels; levels 0 to 3 less 2, weights by 6·6·|−3| at the most."""
    weights = np.stack([np.full((16, 3, 3), 3), np.full((16, 3, 3), -5)] * 8)
    found = packed("winograd", "x86-64-v3", weights, odd(8), THREES)
    assert (found.spec.multiplier, found.spec.offset, found.base, found.spec.middle) == (2 * 3, 1 * 3, -3, 2)
    assert found.reach == 3 * (6 * 3 * 144 + 3 * 144)
    assert found.constant.tolist() == [6 * 2 * 144, 6 * 2 * -3 * 144] * 8
    assert found.spec.tile.outputs == (4, 4) and found.spec.weight_shape == (36, 2, 8, 8, 2)
    assert found.weight[0, 0, 0].tolist() == [[36, 36], [-108, -108]] * 4 and found.weight.dtype == np.int16
    assert family_of("winograd").step(found.spec) == "madd_256 4x4"


def test_many_transformed_weights_are_made_in_the_kernel():
    """2 MiB are 36·2 bytes of 29127 weights, or 24·2 bytes of 43690: 160·182 are stored, 160·183 by the smaller tile,
    160·275 are not."""
    shape = lambda channels: packed(
        "winograd", "x86-64-v3", np.full((160, channels, 3, 3), -8), twos_complement(4), unsigned(4)
    )
    stored, smaller, made = shape(182), shape(183), shape(275)
    assert stored.spec.weight_shape == (36, 20, 91, 8, 2) and stored.weight.dtype == np.int16
    assert smaller.spec.weight_shape == (24, 20, 92, 8, 2) and smaller.weight.dtype == np.int16
    assert made.spec.weight_shape == (20, 138, 5, 8, 2) and made.weight.dtype == np.uint8
    assert (made.weight[:, 137, :4, :, 1] == 0x88).all() and not made.weight[
        :, 137, :4, :, 0
    ].any()  # 0 and −8 as codes


def test_steps_that_add_by_narrow_lanes():
    """SDOT by none; of 128·127 16 bits hold two."""
    sdot = packed("dot", "rpi5", np.full((16, 16), 127), twos_complement(8), unsigned(8)).spec.instr
    assert (sdot.whole, sdot.most, sdot.run) == ("sdot", 0, 0)
    smlal = packed("dot", "rpi4b", np.full((16, 16), 127), twos_complement(8), unsigned(8)).spec.instr
    assert (smlal.whole, smlal.most, smlal.run) == ("smlal", 0, 2)


def test_who_counts_bytes_by_a_micro_kernel():
    whole = [
        packed("popcount", t, np.ones((16, 16)), bipolar(), unsigned(1)).spec.count.whole
        for t in ("rpi5", "rpi4b-32", "x86-64-v3")
    ]
    assert whole == [True, False, False]


# -- sums that narrow lanes hold ---------------------------------------------------------------------------------------
def test_counts_that_are_added_before_they_are_widened():
    """8-bit lanes take counts of 8, or 4 of nibbles; 16-bit ones two counts of 8."""
    for count, lane, each in ((ByteCount("", "w", 8), 255, 8), (ByteCount("", "w", 8, nibbles=True), 255, 4)):
        assert count.most * each <= lane < (count.most + 1) * each
    assert ByteCount("", "w", 8, 2).most * 16 <= 65535 < (ByteCount("", "w", 8, 2).most + 1) * 16


@pytest.mark.parametrize(
    "reduction, most, inner",
    [
        ((3, 3, 4), 36, (3, 3, 4)),
        ((3, 3, 4), 35, (3, 3, 2)),  # 18; (3, 1, 4) and (1, 3, 4) are 12
        ((3, 3, 4), 12, (3, 1, 4)),
        ((3, 5, 4), 11, (1, 5, 2)),
        ((3, 2, 5), 10, (1, 2, 5)),
        ((1, 1, 62), 61, (1, 1, 31)),
        ((2, 2, 6), 3, (1, 1, 3)),
        ((5, 5, 7), 1, (1, 1, 1)),
    ],
)
def test_how_much_of_a_reduction_counts_are_added_over(reduction, most, inner):
    assert popcount_bytes.chunk(*reduction, most) == inner


def test_entries_that_are_added():
    """Of levels up to 15 an entry is up to 60: 4 of them fit 8 bits, 546 pairs 16 bits, 1092 by themselves."""
    looked_up = Lookup("s", "w", "f", 1, 4)
    assert (looked_up.most, looked_up.run) == (4, 0)
    assert (Lookup("", "", "f", 1, 4, 16, "tbl2", 2).most, Lookup("", "", "f", 1, 4, 16, "tbl2", 2).run) == (546, 0)
    assert (Lookup("", "", "f", 1, 4, 16, "tbl1").most, Lookup("", "", "f", 1, 4, 16, "tbl1").run) == (1092, 4)


def test_slots():
    """Plane pairs of equal |c·d| share one; more than 16 have each their own."""
    signs = Slots.make((1, -2), (1, 2))
    assert signs.weights == (1, 2, 4) and signs.of == (((0, 1), (1, 1)), ((1, -1), (2, -1)))
    assert signs.merged and Slots.make((2,), (1, 2)).merged
    sixteen = Slots.make((1, 2, 4, -8), (1, 2, 4, 8))
    assert sixteen.merged and sixteen.weights == (1, 2, 4, 8, 16, 32, 64)
    apart = Slots.make((1, -2), (1, 2, 4, 8, 16, 32, 64, 128, -256))
    assert not apart.merged and apart.of[1][:2] == ((9, 1), (10, 1)) and apart.of[0][8] == (8, 1)
    assert apart.weights[8:11] == (-256, -2, -4)


@pytest.mark.parametrize("name", ["popcount", "dot", "lookup", "depthwise", "winograd"])
def test_a_sample_is_a_small_part_that_the_family_computes(name):
    record = family_of(name)
    part = record.sample("t", 32, (1, 2, 3, 4))
    grouped = name == "depthwise"
    outputs = 64 if name == "lookup" else 16  # whole vectors of look-ups, on every target
    kernel = (3, 3) if name == "winograd" else (1, 1)
    assert part.q.shape == ((32, 1, 1, 1) if grouped else (outputs, 32, *kernel))
    assert (part.input, part.pads, part.groups) == ("t", (1, 2, 3, 4), 32 if grouped else 1)
    assert part.grid == (bipolar() if name == "popcount" else twos_complement(8))
    assert set(np.unique(part.q)) <= set(part.grid.values.tolist()) and len(np.unique(part.q)) > 1


def test_families_in_their_order():
    assert family_of("depthwise").rate(load_target("native"), 1, 1) == 0
    assert [(f.name, f.reads, f.only) for f in families()] == [
        ("popcount", "planes", False),
        ("dot", "codes", False),
        ("lookup", "codes", False),
        ("depthwise", "codes", True),
        ("winograd", "codes", False),
    ]
