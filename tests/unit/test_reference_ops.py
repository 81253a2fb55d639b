"""Contraction and pooling on integer codes against torch in float64 (exact for these sizes), and by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpcompile.errors import ModelError
from mpcompile.ir.graph import Along
from mpcompile.ir.grid import Grid, bipolar, twos_complement, unsigned
from mpcompile.ir.layer import ContractPart, ContractTerm, PoolTerm, RearrangeTerm, ViewTerm
from mpcompile.ir.order import Order
from mpcompile.reference.ops import contract, fits_int32, pool, term

W8 = twos_complement(8)


def torch_conv(x, part):
    top, left, bottom, right = part.pads
    x = torch.nn.functional.pad(torch.tensor(x, dtype=torch.float64)[None], (left, right, top, bottom))
    w = torch.tensor(part.q, dtype=torch.float64)
    y = torch.nn.functional.conv2d(x, w, stride=part.strides, dilation=part.dilations, groups=part.groups)
    return y[0].numpy().astype(np.int64)


@st.composite
def convolutions(draw):
    small = st.integers(1, 3)
    groups = draw(small)
    per_group, out = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    kernel, strides, dilations = (draw(st.tuples(small, small)) for _ in range(3))
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    h, w = (
        max(1, d * (k - 1) + 1 - a - b) + draw(st.integers(0, 5))
        for k, d, a, b in zip(kernel, dilations, pads[:2], pads[2:])
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q = rng.integers(-128, 128, (groups * out, per_group, *kernel))
    part = ContractPart("x", q, W8, strides, pads, dilations, groups)
    return rng.integers(-255, 256, (groups * per_group, h, w)), part


@settings(deadline=None)
@given(convolutions())
def test_conv(case):
    x, part = case
    got = contract(x, part)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, torch_conv(x, part))


@pytest.mark.parametrize("largest", [1, 500, 2_000_000])  # float32, float64 and the type in between
def test_sums_are_exact_in_every_type(largest):
    rng = np.random.default_rng(0)
    part = ContractPart("x", rng.choice([-1, 1], (8, 600, 1, 1)), bipolar())
    x = largest - rng.integers(0, 2, (600, 3, 3))
    by_hand = np.einsum("oc,chw->ohw", part.q[:, :, 0, 0], x)
    np.testing.assert_array_equal(contract(x, part), by_hand)


def test_sums_too_large_for_float64_are_still_exact():
    w = np.array([[1, -1, 1]]).reshape(1, 3, 1, 1) * (1 << 20)
    x = np.array([1 << 40, (1 << 40) - 3, -2]).reshape(3, 1, 1)
    assert contract(x, ContractPart("x", w, unsigned(1))).item() == 1 << 20


def test_depthwise_is_a_convolution_of_each_channel():
    rng = np.random.default_rng(1)
    x, w = rng.integers(0, 16, (5, 6, 7)), rng.integers(-8, 8, (5, 1, 3, 3))
    y = contract(x, ContractPart("x", w, W8, pads=(1, 1, 1, 1), groups=5))
    for c in range(5):
        alone = contract(x[c : c + 1], ContractPart("x", w[c : c + 1], W8, pads=(1, 1, 1, 1)))
        np.testing.assert_array_equal(y[c : c + 1], alone)


def test_dense_and_conv1d_are_special_cases():
    rng = np.random.default_rng(2)
    x, w = rng.integers(0, 16, 24), rng.integers(-8, 8, (7, 24))
    dense = contract(x, ContractPart("x", w.reshape(7, 24, 1, 1), W8))
    np.testing.assert_array_equal(dense[:, 0, 0], w @ x)
    # Over (C, H, W), flattened in row-major order, with a kernel of H×W.
    flat = contract(x.reshape(2, 3, 4), ContractPart("x", w.reshape(7, 2, 3, 4), W8))
    np.testing.assert_array_equal(flat, dense)
    line, kernel = rng.integers(0, 16, (3, 11)), rng.integers(-8, 8, (2, 3, 4))
    got = contract(line, ContractPart("x", kernel[:, :, None], W8, (1, 2), (0, 1, 0, 2)))
    padded = np.pad(line, ((0, 0), (1, 2)))
    want = [[(kernel[o] * padded[:, i : i + 4]).sum() for i in range(0, 11, 2)] for o in range(2)]
    np.testing.assert_array_equal(got[:, 0], want)


def test_padding_is_real_zero_where_the_grid_has_none():
    part = ContractPart("x", np.ones((1, 1, 3, 3), int), bipolar(), pads=(1, 1, 1, 1))
    y = contract(-np.ones((1, 3, 3), int), part)[0]
    assert y.tolist() == [[-4, -6, -4], [-6, -9, -6], [-4, -6, -4]]


def test_several_parts_add():
    rng = np.random.default_rng(3)
    x = {"a": rng.integers(0, 4, (3, 4, 4)), "b": rng.integers(0, 16, (2, 4, 4))}
    w = rng.integers(-8, 8, (5, 5, 3, 3))
    parts = [ContractPart("a", w[:, :3], W8), ContractPart("b", w[:, 3:], W8)]
    whole = contract(np.concatenate([x["a"], x["b"]]), ContractPart("ab", w, W8))
    np.testing.assert_array_equal(term(ContractTerm(parts), x), whole)


def test_overflow_is_refused():
    part = ContractPart("x", np.full((1, 1, 1, 1), 1 << 16), Grid((1 << 16,), 0, 0, 1 << 16, 1 << 16))
    assert contract(np.full((1, 1, 1), (1 << 15) - 1), part).item() == ((1 << 15) - 1) << 16
    with pytest.raises(ModelError, match="2147483648 does not fit"):
        contract(np.full((1, 1, 1), 1 << 15), part)
    with pytest.raises(ModelError, match="-2147483649 does not fit"):
        fits_int32(np.array([0, -(1 << 31) - 1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: contract(np.zeros((3, 2, 2), int), ContractPart("x", np.zeros((1, 3, 3, 3), int), W8)),
        lambda: contract(np.zeros((3, 4, 4), int), ContractPart("x", np.zeros((1, 2, 3, 3), int), W8)),
        lambda: contract(np.zeros((1, 3, 4, 4), int), ContractPart("x", np.zeros((1, 3, 3, 3), int), W8)),
        lambda: pool(np.zeros((3, 4, 4), int), PoolTerm("x", "max", (2, 2), (1, 1), (2, 0, 0, 0))),
    ],
)
def test_what_does_not_fit(make):
    with pytest.raises(ModelError, match="fit|padding only|layer takes"):
        make()


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_pools(kernel, strides, seed, integer):
    rng = np.random.default_rng(seed)
    top, left = (int(rng.integers(0, k // 2 + 1)) for k in kernel)  # torch: at most half the kernel, on both sides
    h, w = rng.integers(3, 8, 2)
    x = rng.integers(-9, 10, (2, h, w))
    x = x if integer else (x / 4).astype(np.float32)  # quarters: sums are exact in any order
    t = torch.tensor(x, dtype=torch.float64)[None]
    pads = (top, left, top, left)
    got = pool(x, PoolTerm("x", "max", kernel, strides, pads))
    assert got.dtype == (np.int64 if integer else np.float32)
    np.testing.assert_array_equal(got, torch.nn.functional.max_pool2d(t, kernel, strides, (top, left))[0].numpy())
    total = torch.nn.functional.avg_pool2d(t, kernel, strides, (top, left), divisor_override=1)
    np.testing.assert_array_equal(pool(x, PoolTerm("x", "sum", kernel, strides, pads)), total[0].numpy())


def test_a_float_sum_is_added_in_order():
    x = np.array([[[1, 2.0**24], [1, -(2.0**24)]]], np.float32)
    got = pool(x, PoolTerm("x", "sum", (2, 2), (1, 1))).item()
    assert got == float(np.float32(np.float32(np.float32(1) + np.float32(2.0**24)) + 1) - np.float32(2.0**24))
    assert got == 0.0 and x.sum(dtype=np.float64) == 2.0  # another order would give another sum


def test_global_pool_and_asymmetric_padding():
    x = np.arange(12).reshape(1, 3, 4)
    assert pool(x, PoolTerm("x", "sum", (3, 4), (1, 1))).tolist() == [[[66]]]
    y = pool(x - 20, PoolTerm("x", "max", (2, 2), (2, 2), (0, 1, 1, 1)))
    assert y.tolist() == [[[-16, -14, -13], [-12, -10, -9]]]


def test_views_that_pick():
    x = np.arange(24).reshape(2, 3, 4)
    picked = term(ViewTerm("x", (Along(1, 1), Along(2, 2, -2), Along(4, 1, 2, 2))), {"x": x})
    assert picked.tolist() == [[[21, 21, 23, 23], [13, 13, 15, 15]]]
    each = term(ViewTerm("v", (Along(2), Along(1, 0, 1, 1), Along(3, 0, 1, 3))), {"v": np.array([5, 7])})
    assert each.tolist() == [[[5, 5, 5]], [[7, 7, 7]]]


def test_an_order_by_hand():
    x = np.arange(6).reshape(2, 1, 3)
    by = Order(((3, 1), (2, 3)))  # a transpose
    assert term(RearrangeTerm("x", by, (3, 1, 2), (Along(3), Along(1), Along(2))), {"x": x}).tolist() == [
        [[0, 3]],
        [[1, 4]],
        [[2, 5]],
    ]
    last = term(RearrangeTerm("x", by, (3, 1, 2), (Along(1, 2), Along(1), Along(1, 1))), {"x": x})
    assert last.tolist() == [[[5]]]


def test_views():
    q = np.arange(6, dtype=np.uint8)
    assert term(ViewTerm("x"), {"x": q}).shape == (6, 1, 1) and term(ViewTerm("x"), {"x": q}).dtype == np.int64
    x = np.zeros((2, 3), np.float32)
    assert term(ViewTerm("x"), {"x": x}).shape == (2, 1, 3) and term(ViewTerm("x"), {"x": x}).dtype == np.float32
