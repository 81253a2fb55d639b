"""Whole layers under QEMU: the x86 tests of pools, skips, several outputs and roundings."""

import numpy as np
import pytest

from mpcompile.ir import grid as grids
from mpcompile.ir.graph import ROUNDINGS, Quantizer, TensorType
from mpcompile.ir.layer import Clamp, Fma, Layer, Load, Output, Plus, Round, ViewTerm
from tests.kernels import test_layers as layers
from tests.kernels.harness import check, stored

BOARDS = ("rpi4b", "rpi5", "rpi4b-32")


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("shape", [(3, 12, 17), (1, 8, 8), (20, 5, 6), (7, 1, 40), (33, 1, 1)], ids=str)
def test_quantize_a_plain_input(board, shape):
    layers.test_quantize_a_plain_input(board, shape)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("form, kind", [("codes", "max"), ("planes", "sum"), ("float", "max"), ("plain", "sum")])
def test_pool(board, form, kind):
    layers.test_pool_every_format(board, form, kind, 70)


@pytest.mark.parametrize("board", (*BOARDS, "rpi3b"))
@pytest.mark.parametrize("families", [("popcount", "popcount"), ("dot", "popcount"), ("dot", "dot")])
def test_residual_block(board, families):
    layers.test_residual_block(board, families)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("skip_form", ["codes", "planes"])
def test_add_of_codes(board, skip_form):
    layers.test_add_of_codes(board, skip_form)


@pytest.mark.parametrize("board", BOARDS)
def test_concat_slices_in_one_contraction(board):
    layers.test_concat_slices_in_one_contraction(board)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("form", ["codes", "planes"])
def test_tables_of_levels_and_their_product(board, form):
    layers.test_tables_of_levels_and_their_product(board, form)


@pytest.mark.parametrize("board", ("rpi4b", "rpi4b-32"))
@pytest.mark.parametrize("name", layers.VIEWS)
def test_view(board, name):
    layers.test_view(board, "codes", name)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_rounding(board, rounding):
    layers.test_rounding(board, rounding)


@pytest.mark.parametrize("board", BOARDS)
def test_fma_rounds_once(board):
    layers.test_fma_rounds_once(board)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("shape", [(3, 8, 16), (64, 4, 4)], ids=str)
def test_subnormal_numbers(board, shape):
    """Inputs, skips and results below 2^-126, the sign of which decides a code. On 32-bit ARM, NEON takes them for 0:
    scalars do not."""
    rng = np.random.default_rng(8)
    layer = Layer(
        "tiny",
        ["x", "s"],
        ["r", "q"],
        shape,
        [ViewTerm("x"), ViewTerm("s")],
        [
            Load(0),
            Load(1),
            Plus(0, 1),
            Fma(2, np.float32([0.75]), np.float32([0.0])),
            Clamp(3, -1.0, 1.0),
            Round(4, "sign", 0, 1),
        ],
        [Output("r", 4), Output("q", 5, Quantizer(grids.bipolar(), 1.0, rounding="sign"))],
    )
    x = (rng.normal(0, 1, shape) * 2.0 ** rng.integers(-150, -120, shape)).astype(np.float32)
    s = (rng.normal(0, 1, shape) * 2.0 ** rng.integers(-150, -120, shape)).astype(np.float32)
    assert (np.abs(x[x != 0]) < np.finfo(np.float32).tiny).mean() > 0.5
    types = {
        "x": TensorType(shape),
        "s": TensorType(shape),
        "r": TensorType(shape),
        "q": TensorType(shape, Quantizer(grids.bipolar(), 1.0)),
    }
    forms = ("codes",) if shape[0] <= 4 else ("codes", "planes+sums")
    check(
        layer,
        types,
        {"x": x, "s": s},
        {},
        board,
        {"x": stored("x", shape), "s": stored("s", shape)},
        {"r": stored("r", shape, None, ("float", "plain")), "q": stored("q", shape, grids.bipolar(), forms)},
    )
