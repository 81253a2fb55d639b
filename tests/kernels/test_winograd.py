"""Kernels of family `winograd`: every byte against the reference, with extreme codes, on every x86 level."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.layer import ContractTerm
from mpcompile.kernels.families import winograd
from mpcompile.kernels.families.winograd import WinogradSpec
from mpcompile.kernels.families.winograd_tile import BYTE_TILES, TILES
from mpcompile.schedules.tile import Tile
from tests.kernels.harness import LEVELS, can_run
from tests.kernels.test_contract import convolution, run

EIGHT = grids.twos_complement(8)


def case(
    channels,
    height,
    width,
    outputs,
    pads=(1, 1, 1, 1),
    grid_w=EIGHT,
    grid_a=grids.unsigned(8),
):
    return convolution(
        np.random.default_rng(channels + height),
        channels,
        height,
        width,
        outputs,
        (3, 3),
        (1, 1),
        pads,
        grid_w,
        grid_a,
        grids.unsigned(8),
    )


@pytest.fixture(params=TILES, ids=lambda t: f"{t.outputs}")
def tile(request, monkeypatch):
    """Each of the tiles, alone."""
    monkeypatch.setattr(winograd, "TILES", (request.param,))
    return request.param


def check(found, target="x86-64-v3", **more) -> WinogradSpec:
    (spec,) = run(found, "winograd", target, **more).spec.parts
    assert isinstance(spec, WinogradSpec)
    return spec


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize(
    "channels, height, width, outputs, pads",
    [
        (64, 8, 8, 64, (1, 1, 1, 1)),
        (20, 9, 14, 16, (1, 1, 1, 1)),
        (32, 7, 7, 40, (1, 1, 1, 1)),
        (16, 6, 7, 130, (0, 0, 0, 0)),
        (24, 5, 8, 32, (2, 0, 1, 3)),
    ],
)
def test_shapes(target, channels, height, width, outputs, pads):
    check(case(channels, height, width, outputs, pads), target)


@pytest.mark.parametrize("height, width", [(4, 4), (5, 6), (6, 11)])
def test_tiles(tile, height, width):
    assert check(case(18, height, width, 24)).tile == tile


@pytest.mark.parametrize("target", LEVELS)
def test_weights_that_are_made_in_the_kernel(tile, target, monkeypatch):
    monkeypatch.setattr(winograd, "MOST_STORED", 0)
    spec = check(case(21, 9, 8, 70), target)
    assert spec.made and spec.weight_dtype == "int8"


def test_a_halo_that_is_larger_than_the_paddings(tile):
    check(case(20, 7, 8, 32), in_halo=(2, 4, 3, 1))


@pytest.mark.parametrize(
    "bits_w, bits_a, target",
    [
        (w, a, LEVELS[(w + a) % len(LEVELS)])
        for w in range(1, 9)
        for a in range(1, 9)
        if w == a or {w, a} == {1, 8} or (w, a) == (2, 7)
    ],
)
def test_bits(bits_w, bits_a, target):
    """All of them by integers: test_winograd_tiles.py."""
    grid = grids.twos_complement(bits_w) if bits_w > 1 else grids.bipolar()
    check(case(17, 5, 6, 19, grid_w=grid, grid_a=grids.unsigned(bits_a)), target, out_forms=("codes",))


@pytest.mark.parametrize(
    "grid_w, grid_a",
    [
        (grids.odd(8), grids.unsigned(8)),
        (grids.unsigned(8), grids.unsigned(8, 7)),
        (EIGHT, grids.odd(8)),
        (EIGHT, grids.twos_complement(8)),
        (grids.twos_complement(4), grids.sign_magnitude(4)),
        (grids.bipolar(), grids.odd(2)),
    ],
    ids=str,
)
def test_grids_with_offsets_and_borders(grid_w, grid_a):
    check(case(18, 6, 9, 24, grid_w=grid_w, grid_a=grid_a))


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_codes(target, sign):
    """The largest and least weights that all add up, and those whose differences do: sums wrap."""
    found = case(220, 8, 8, 16)
    (term,), x = found[0].terms, found[2]["x"]
    assert isinstance(term, ContractTerm)
    q = term.parts[0].q
    q[:], x[:] = 127 if sign > 0 else -128, 255
    q[::2] = np.where(np.indices((3, 3)).sum(0) % 2 == (sign > 0), 127, -128)
    x[:, ::2, 1::2] = 0
    spec = check(found, target)
    assert spec.tile == TILES[0]
    assert spec.tile.rows.divisor * spec.tile.columns.divisor * 127 * abs(int(q[1].sum())) > 1 << 32


@pytest.mark.parametrize("forms", [("planes", "codes"), ("float",), ("codes+sums",)], ids=str)
def test_what_is_written(forms):
    check(case(32, 8, 8, 64), out_forms=forms)


@pytest.mark.parametrize(
    "how", [Tile(8, 4, 8), Tile(2, 2, 16, lines=4), Tile(4, 4, 24, lines=8), Tile(8, 8, 8, lines=2)], ids=str
)
def test_schedules_change_no_byte(tile, how):
    check(case(32, 8, 8, 96), out_forms=("codes",), tile=how)


# -- in bytes ----------------------------------------------------------------------------------------------------------
VNNI = pytest.param(
    "x86-64-v4-vnni-vpopcntdq",
    marks=pytest.mark.skipif(
        not can_run("x86-64-v4-vnni-vpopcntdq"), reason="this CPU multiplies no bytes in 512 bits"
    ),
)
FEW = {(4, 4): (4, 4), (3, 3): (2, 3), (2, 2): (4, 6), (2, 4): (4, 5), (4, 2): (4, 5)}
"""The most bits of weights and levels by tile."""


@pytest.fixture(params=BYTE_TILES, ids=lambda t: f"bytes{t.outputs}")
def byte_tile(request, monkeypatch):
    """Each of the tiles in bytes, alone."""
    monkeypatch.setattr(winograd, "BYTE_TILES", (request.param,))
    monkeypatch.setattr(winograd, "TILES", ())
    return request.param


def few(tile, *shape, **more):
    w, a = FEW[tile.outputs]
    return case(*shape, **dict(grid_w=grids.twos_complement(w), grid_a=grids.unsigned(a)) | more)


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize(
    "channels, height, width, outputs, pads",
    [
        (64, 8, 8, 64, (1, 1, 1, 1)),
        (20, 9, 14, 16, (1, 1, 1, 1)),
        (16, 6, 7, 130, (0, 0, 0, 0)),
        (72, 5, 8, 32, (2, 0, 1, 3)),
    ],
)
def test_shapes_in_bytes(byte_tile, target, channels, height, width, outputs, pads):
    spec = check(few(byte_tile, channels, height, width, outputs, pads), target)
    assert spec.tile == byte_tile and spec.instr.weight_dtype == "int8"


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize("of", ["stored", "made"])
def test_weights_in_bytes_that_are_stored_and_made(byte_tile, target, of, monkeypatch):
    monkeypatch.setattr(winograd, "_stored", lambda *_: of == "stored")
    assert check(few(byte_tile, 21, 9, 8, 70), target).made == (of == "made")


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize(
    "channels, grid, bits",
    [
        (20, grids.bipolar(), 1),
        (18, grids.bipolar(), None),  # the padded channels' weights are 0, which is none of its codes
        (18, grids.unsigned(2), 2),
        (20, grids.odd(2), 2),
        (18, grids.twos_complement(3), 4),
        (20, grids.odd(3), 4),
        (20, grids.twos_complement(4), 4),
    ],
    ids=str,
)
def test_weights_made_of_codes(channels, grid, bits, target, monkeypatch):
    monkeypatch.setattr(winograd, "_stored", lambda *_: False)
    monkeypatch.setattr(winograd, "BYTE_TILES", BYTE_TILES[2:3])
    spec = check(case(channels, 6, 5, 40, grid_w=grid, grid_a=grids.unsigned(4)), target)
    assert spec.made and (spec.codes and spec.codes.bits) == bits
    assert spec.weight_dtype == ("uint8" if bits else "int8") and spec.weight_shape[2] == -(-9 * (bits or 8) // 8)


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_codes_in_bytes(byte_tile, target, sign):
    w, a = FEW[byte_tile.outputs]
    found = few(byte_tile, 220, 8, 9, 16)
    (term,), x = found[0].terms, found[2]["x"]
    assert isinstance(term, ContractTerm)
    q, lo, hi = term.parts[0].q, -(1 << w - 1), (1 << w - 1) - 1
    q[:], x[:] = hi if sign > 0 else lo, (1 << a) - 1
    q[::2] = np.where(np.indices((3, 3)).sum(0) % 2 == (sign > 0), hi, lo)
    x[:, ::2, 1::2] = 0
    check(found, target)


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize(
    "grid_w, grid_a",
    [
        (grids.unsigned(1), grids.unsigned(3, 5)),
        (grids.bipolar(), grids.odd(2)),
        (grids.twos_complement(2), grids.twos_complement(3)),
    ],
    ids=str,
)
def test_offsets_and_borders_in_bytes(byte_tile, target, grid_w, grid_a):
    check(few(byte_tile, 18, 6, 9, 24, grid_w=grid_w, grid_a=grid_a), target, in_halo=(2, 4, 3, 1))


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize("forms", [("planes", "codes"), ("float",)], ids=str)
def test_what_is_written_in_bytes(byte_tile, target, forms):
    check(few(byte_tile, 32, 8, 8, 64), target, out_forms=forms)


@pytest.mark.parametrize("target", [VNNI])
@pytest.mark.parametrize("how", [Tile(2, 2, 16, lines=6), Tile(4, 4, 48, lines=12)], ids=str)
def test_schedules_change_no_byte_in_bytes(byte_tile, target, how):
    check(few(byte_tile, 32, 12, 8, 96), target, out_forms=("codes",), tile=how)


@pytest.mark.parametrize("target", [VNNI])
def test_sixteen_bits_by_vnni(tile, target, monkeypatch):
    monkeypatch.setattr(winograd, "BYTE_TILES", ())
    spec = check(case(40, 9, 8, 70), target)
    assert spec.instr.intrin == "mpcompile.dpwssd_512"
