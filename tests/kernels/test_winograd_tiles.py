"""Schemes and tiles of family `winograd`, by integers alone: what they compute, and that what is proved of them holds."""

from itertools import product

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.layer import ContractPart
from mpcompile.kernels.families import winograd
from mpcompile.kernels.families.winograd_codes import Codes
from mpcompile.kernels.families.winograd_scheme import scheme
from mpcompile.kernels.families.winograd_tile import BYTE_TILES, INT16, MOST, TILES, ByteTile, WinogradTile, middle
from mpcompile.kernels.weights import dot_weights
from mpcompile.targets import load_target

POINTS = (0, 1, -1, 2, -2, 3, -3)


def is_correlation(found) -> bool:
    """divisor·y_i = Σ_k d_{i+k}·g_k, for all d and g: as an identity of each product d_t·g_k."""
    for i, k, t in product(range(found.outputs), range(found.taps), range(found.size)):
        total = sum(a * g[k] * b[t] for a, g, b in zip(found.sums[i], found.weights, found.levels, strict=True))
        if total != found.divisor * (t == i + k):
            return False
    return True


@pytest.mark.parametrize("most", [0, MOST, 10**9])
@pytest.mark.parametrize(
    "outputs, taps", [(1, 1), (1, 3), (2, 3), (3, 3), (4, 3), (6, 3), (2, 5), (4, 5), (3, 2), (2, 1)]
)
def test_a_scheme_is_the_correlation(outputs, taps, most):
    found = scheme(outputs, taps, POINTS[: outputs + taps - 2], most)
    assert is_correlation(found) and found.products == found.size == outputs + taps - 1
    rows = [sum(map(abs, row)) for row in found.weights]
    least = [sum(map(abs, row)) for row in scheme(outputs, taps, POINTS[: outputs + taps - 2], 0).weights]
    assert all(row <= max(most, alone) for row, alone in zip(rows, least))


@pytest.mark.parametrize("most", [0, MOST])
@pytest.mark.parametrize(
    "outputs, taps, points, pairs",
    [
        (4, 3, (0, 1, -1), (0,)),
        (3, 3, (0, 2), (0,)),
        (2, 3, (0,), (1,)),
        (3, 3, (), (0, -1)),
        (4, 3, (0,), (1, -1)),
        (6, 3, (0, 1, -1), (1, -1)),
        (4, 5, (0, 1, -1), (-1, 0)),
        (2, 2, (), (1,)),
        (3, 1, (), (-1,)),
    ],
)
def test_pairs_take_the_place_of_two_points(most, outputs, taps, points, pairs):
    found = scheme(outputs, taps, points, most, pairs)
    assert is_correlation(found) and found.size == outputs + taps - 1 and found.products == found.size + len(pairs)
    assert all(np.gcd.reduce(row) == 1 for row in found.levels)


def test_the_scheme_with_the_complex_pair():
    """Of the residue mod x² + 1 its constant, its slope and their sum."""
    found = scheme(4, 3, (0, 1, -1), 0, (0,))
    assert found.weights == ((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 0, -1), (0, 1, 0), (1, 1, -1), (0, 0, 1))
    assert found.divisor == 4 and {abs(c) for row in found.levels for c in row} == {0, 1}


def test_other_points_make_other_schemes():
    assert is_correlation(scheme(3, 3, (0, 1, -1, 5), MOST)) and is_correlation(scheme(2, 3, (7, -2, 3), MOST))


def test_the_best_known_scheme():
    """Lavin and Gray's F(2, 3), but for signs."""
    found = scheme(2, 3, (0, 1, -1), MOST)
    assert found.weights == ((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)) and found.divisor == 2
    assert found.levels == ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1))
    assert found.sums == ((1, 1, 1, 0), (0, 1, -1, 1))


@pytest.mark.parametrize("points, pairs", [((0, 1), (0,)), ((0,), (0, 0)), ((), ()), ((0, 0, 1), (0,))])
def test_pairs_count_twice(points, pairs):
    with pytest.raises(ValueError, match=r"^F\(4, 3\) needs 5 different points and infinity, not "):
        scheme(4, 3, points, MOST, pairs)


@pytest.mark.parametrize("points", [(0, 1), (0, 1, 1), (0, 1, -1, 2)])
def test_points_are_as_many_as_levels_but_one(points):
    with pytest.raises(ValueError, match=r"^F\(2, 3\) needs 3 different points and infinity, not "):
        scheme(2, 3, points, MOST)


# -- two dimensions ----------------------------------------------------------------------------------------------------
def by_tile(tile: WinogradTile, w8: np.ndarray, levels: np.ndarray, max_level: int) -> np.ndarray:
    """[tiles, O, rows, columns] of levels [tiles, C, y, x], with operands of 16 and sums of 32 bits that wrap."""
    down, along = np.array(tile.rows.levels), np.array(tile.columns.levels)
    transformed = down @ (levels.astype(np.int64) - middle(max_level)) @ along.T
    assert np.abs(transformed).max() <= INT16
    weights = tile.transform(w8).reshape(*w8.shape[:2], tile.rows.products, tile.columns.products)
    assert np.abs(weights).max() <= INT16
    m = np.einsum("tcij,ocij->toij", transformed, weights).astype(np.int32).astype(np.int64)
    z = (np.array(tile.rows.sums) @ m @ np.array(tile.columns.sums).T).astype(np.int32).astype(np.int64)
    return (z * tile.inverse).astype(np.int32) >> tile.shift


def directly(w8: np.ndarray, levels: np.ndarray, max_level: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(levels.astype(np.int64) - middle(max_level), (3, 3), (2, 3))
    return np.einsum("tcpqab,ocab->topq", windows, w8.astype(np.int64))


@pytest.mark.parametrize("tile", TILES, ids=lambda t: f"{t.outputs}")
def test_tiles_are_exact_for_all_bits(tile):
    """Extreme weights and levels of every grid of 1 to 8 bits."""
    rng = np.random.default_rng(0)
    for w, a in product(range(1, 9), range(1, 9)):
        for grid in (grids.twos_complement(w), grids.unsigned(w, (1 << w) // 2), grids.odd(w)):
            ends = dot_weights(np.array([grid.lo, grid.hi]), grid)[0].astype(np.int64)
            w8 = rng.choice(ends, (6, 5, 3, 3))
            w8[0], w8[1] = ends[0], ends[1]
            max_level = (1 << a) - 1
            levels = rng.choice([0, max_level], (20, 5, tile.rows.size, tile.columns.size))
            levels[0], levels[1] = 0, max_level
            assert tile.holds(int(abs(ends).max()), max_level)
            assert np.abs(w8).sum((1, 2, 3)).max() <= tile.sums(max_level)
            np.testing.assert_array_equal(by_tile(tile, w8, levels, max_level), directly(w8, levels, max_level))


@pytest.mark.parametrize("tile", TILES, ids=lambda t: f"{t.outputs}")
def test_sums_are_exact_as_far_as_is_said_and_no_further(tile):
    """All weights 127 and one that makes their sum what it may be at most; all levels 0 or all 255."""
    most = tile.sums(255)
    w8 = np.full(-(-most // 127) * 9, 127)
    w8 = np.concatenate([w8[: most // 127], [most % 127], 0 * w8])[: -(-(most // 127 + 1) // 9) * 9]
    w8 = w8.reshape(1, -1, 3, 3)
    assert np.abs(w8).sum() == most
    levels = np.zeros((2, w8.shape[1], tile.rows.size, tile.columns.size), np.int64)
    levels[1] = 255
    for sign in (1, -1):
        np.testing.assert_array_equal(by_tile(tile, sign * w8, levels, 255), directly(sign * w8, levels, 255))
    further = w8.copy()
    further.reshape(-1)[np.flatnonzero(w8 < 127)[0]] += 127
    assert (by_tile(tile, -further, levels, 255) != directly(-further, levels, 255)).any()


def by_bytes(tile: ByteTile, w8: np.ndarray, levels: np.ndarray, max_level: int) -> np.ndarray:
    """As `by_tile`: of bytes that wrap until they are what they should be, and of the table of what is too much."""
    down, along = np.array(tile.rows.levels, np.int8), np.array(tile.columns.levels, np.int8)
    half = (down[None, None] @ levels.astype(np.int8)).astype(np.int8)
    whole = (half @ along.T - np.outer(down.sum(1), along.sum(1)).astype(np.int8) * np.int8(middle(max_level))).astype(
        np.int8
    )
    v = (whole.astype(np.uint8) + np.uint8(128)).astype(np.int64)
    u = tile.transform(w8).astype(np.int8).astype(np.int64)
    u = u.reshape(*w8.shape[:2], tile.rows.products, tile.columns.products)
    m = np.einsum("tcij,ocij->toij", v, u).astype(np.int32).astype(np.int64)
    y = np.array(tile.rows.sums) @ m @ np.array(tile.columns.sums).T - tile.excess(w8).transpose(2, 0, 1)
    return (y.astype(np.int32).astype(np.int64) * tile.inverse).astype(np.int32) >> tile.shift


BITS = [(w, a) for w in range(1, 9) for a in range(1, 9)]


@pytest.mark.parametrize(
    "tile, most",
    list(zip(BYTE_TILES, [dict.fromkeys((1, 2, 3, 4), a) if a > 3 else {1: 3, 2: 3} for a in (4, 3, 6, 5, 5)])),
    ids=lambda t: f"{t.outputs}" if isinstance(t, ByteTile) else "",
)
def test_bytes_are_exact_for_the_bits_that_are_said_to_fit(tile, most):
    """most: bits of two's complement weights → the most bits of levels. Extreme weights and levels."""
    rng = np.random.default_rng(0)
    fitting = {}
    for w, a in BITS:
        grid, max_level = grids.twos_complement(w) if w > 1 else grids.bipolar(), (1 << a) - 1
        if not tile.holds(max(abs(grid.lo), abs(grid.hi)), max_level):
            continue
        fitting[w] = max(a, fitting.get(w, 0))
        w8 = rng.choice([grid.lo, grid.hi], (6, 5, 3, 3))
        w8[0], w8[1] = grid.lo, grid.hi
        levels = rng.choice([0, max_level], (500, 5, tile.rows.size, tile.columns.size))
        levels[0], levels[1] = 0, max_level
        for i, (down, right) in enumerate(product(tile.rows.levels, tile.columns.levels)):
            levels[2 + i] = np.where(np.outer(down, right) > 0, max_level, 0)
            levels[102 + i] = np.where(np.outer(down, right) < 0, max_level, 0)
        np.testing.assert_array_equal(by_bytes(tile, w8, levels, max_level), directly(w8, levels, max_level))
    assert fitting == most


@pytest.mark.parametrize("tile", BYTE_TILES, ids=lambda t: f"{t.outputs}")
def test_bytes_hold_what_is_said_and_no_more(tile):
    greatest = max(n for n in range(256) if tile.holds_levels(n))
    assert not any(tile.holds_levels(n) for n in range(greatest + 1, 256))
    ends = []
    for matrices in product(tile.rows.levels, tile.columns.levels):
        for sign in (1, -1):
            levels = np.where(sign * np.outer(*matrices) > 0, greatest, 0) - middle(greatest)
            ends.append((levels * np.outer(*matrices)).sum())
    assert min(ends) >= -128 and max(ends) <= 127 and max(ends) - min(ends) > 255 * greatest // (greatest + 2)
    most = 2 if tile.outputs == (3, 3) else 14
    assert tile.holds_weights(most) and not tile.holds_weights(most + 1)


@pytest.mark.parametrize("tile", TILES, ids=lambda t: f"{t.outputs}")
def test_operands_reach_what_is_said(tile):
    """Of the worst levels and weights no number is larger, and none smaller would do."""
    worst = 0
    for matrices in product(tile.rows.levels, tile.columns.levels):
        levels = np.where(np.outer(*matrices) > 0, 255, 0) - middle(255)
        worst = max(worst, abs((levels * np.outer(*matrices)).sum()))
    assert tile.holds(128, 255) and worst <= INT16
    weights = max(np.abs(np.outer(*rows)).sum() for rows in product(tile.rows.weights, tile.columns.weights))
    assert tile.holds(INT16 // weights, 255) and not tile.holds(INT16 // weights + 1, 255)
    steep = max(np.abs(np.outer(*rows)).sum() for rows in product(tile.rows.levels, tile.columns.levels))
    assert tile.holds(1, 2 * (INT16 // steep)) and not tile.holds(1, 2 * (INT16 // steep) + 1)


@pytest.mark.parametrize("taps", [1, 3, 9, 25])
@pytest.mark.parametrize(
    "grid",
    [grids.bipolar(), grids.unsigned(1), grids.twos_complement(2), grids.odd(2), grids.odd(3), grids.odd(4)],
    ids=str,
)
def test_codes_are_the_weights(grid, taps):
    rng = np.random.default_rng(taps)
    w8, _, _ = dot_weights(rng.choice(grid.values, (2, 3, taps, 4, 2)), grid)
    codes = Codes.of(grid, False)
    assert codes is not None and codes.bits == {1: 1, 2: 2, 3: 4, 4: 4}[grid.bits]
    packed = codes.pack(w8)
    assert packed.shape == (2, 3, -(-taps * codes.bits // 8), 4, 2) and packed.dtype == np.uint8
    for tap in range(taps):
        at, shift = codes.place(tap, taps)
        found = (packed[:, :, at].astype(int) >> shift) % (1 << codes.bits) * codes.step + codes.least
        np.testing.assert_array_equal(found, w8[:, :, tap])


def test_which_weights_have_codes():
    assert Codes.of(grids.twos_complement(5), False) is None and Codes.of(grids.twos_complement(4), True)
    assert Codes.of(grids.odd(4), True) is None and Codes.of(grids.bipolar(), True) is None


# -- choice ------------------------------------------------------------------------------------------------------------
def part(outputs=64, channels=64, grid=grids.twos_complement(8), q=None, kernel=(3, 3), **more) -> ContractPart:
    q = np.full((outputs, channels, *kernel), grid.hi) if q is None else q
    return ContractPart("x", q, grid, **more)


def outputs_of(found, levels=256, size=(28, 28)):
    tile = winograd.choose(found, grids.unsigned((levels - 1).bit_length()), size)
    return tile and tile.outputs


def test_filters_decide_where_the_grid_does_not():
    """128·9·256 weights may add up to 294912, which (4, 4) does not hold at 256 levels; half of them do."""
    four, two = TILES[0].sums(255), TILES[1].sums(255)
    assert four == (2**25 - 1) // 128 and two == (2**27 - 1) // 128 and four < 128 * 9 * 256 < two
    assert outputs_of(part(channels=200)) == (4, 4)
    large = np.full((64, 256, 3, 3), -128)
    assert outputs_of(part(q=large)) in ((2, 4), (4, 2))
    assert outputs_of(part(q=large // 2)) == (4, 4)
    assert outputs_of(part(q=large), levels=16) == (4, 4)
    one = np.full((64, 256, 3, 3), 1)
    one[63] = -128
    assert outputs_of(part(q=one)) in ((2, 4), (4, 2))
    assert outputs_of(part(q=np.full((16, 1024, 3, 3), -128))) == (2, 2)
    assert outputs_of(part(q=np.full((16, 3641, 3, 3), -128))) is None


@pytest.mark.parametrize(
    "change",
    [
        dict(kernel=(3, 5)),
        dict(kernel=(1, 1)),
        dict(strides=(2, 2)),
        dict(strides=(1, 2)),
        dict(dilations=(1, 2)),
        dict(groups=2),
        dict(channels=15),
        dict(outputs=15),
    ],
    ids=str,
)
def test_what_is_left_alone(change):
    assert outputs_of(part()) and outputs_of(part(**change)) is None


def test_small_maps_and_wide_grids_are_left_alone():
    assert (
        outputs_of(part(), size=(4, 4)) and not outputs_of(part(), size=(3, 4)) and not outputs_of(part(), size=(4, 3))
    )
    nine = grids.Grid(tuple(1 << i for i in range(9)), 0, 0, 511)
    assert winograd.choose(part(), nine, (8, 8)) is None
    assert winograd.choose(part(grid=nine), grids.unsigned(8), (8, 8)) is None


def test_only_where_it_was_measured():
    can = lambda target: winograd.cycles(part(), grids.unsigned(8), load_target(target), (8, 8)) is not None
    x86 = "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-vnni-vpopcntdq", "zen4", "sapphire-rapids"
    assert all(can(target) for target in x86)
    assert not any(can(target) for target in ("rpi4b", "rpi5", "aarch64"))


def test_filters_decide_whether_bytes_hold_them():
    """Weights of 8 bits whose sums are small fit; one filter that does not decides for all."""
    q = np.zeros((64, 64, 3, 3), np.int64)
    q[:, :, 1, 1] = 127
    tile = lambda: winograd.choose(part(q=q), grids.unsigned(4), (28, 28), (8, 16))
    assert tile().bits == 8
    q[63, 63, 1, 1] = -127
    assert tile().bits == 8
    q[63, 63, 0, 1] = -1
    assert tile().bits == 16
