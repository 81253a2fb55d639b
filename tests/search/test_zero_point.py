"""The quantizer of signed tensors: its codes, grid and gradients, by hand; and where its range starts."""

import numpy as np
import pytest
import torch

from mpcompile.ir import grid as grids
from mpcompile.search.trace.zero_point import ZeroPoint

BITS = (1, 2, 4, 8)


def made(alpha, zeros, bits=BITS) -> ZeroPoint:
    found = ZeroPoint(bits)
    found.alpha.data = torch.tensor(alpha)
    found.zeros.copy_(torch.tensor(zeros))
    return found


def test_by_hand():
    two = made([2.0], [1.0], (2,))  # spacing 2/(3 − 1) = 1: levels 0..3 stand for −1, 0, 1, 2
    x = torch.tensor([-3.0, -0.6, -0.5, 0.4, 0.5, 1.2, 1.5, 9.0])
    assert two.codes(x, 2).tolist() == [0, 0, 0, 1, 2, 2, 2, 3]  # halves to even, counted from the zero point on
    assert two.fake(x, 2).tolist() == [-1, -1, -1, 0, 1, 1, 1, 2]
    assert two.grid(2) == grids.unsigned(2, 1) and two.scale(2) == 1
    one = made([0.7], [0.5], (1,))
    assert one.fake(torch.tensor([-0.1, 0.0, 5.0]), 1).tolist() == pytest.approx([-0.7, 0.7, 0.7])
    assert one.grid(1) == grids.bipolar() and one.scale(1) == pytest.approx(0.7)


@pytest.mark.parametrize("bits", BITS)
def test_codes_stand_for_what_forward_gives(bits):
    quantizer, x = (
        ZeroPoint(BITS),
        torch.nn.functional.silu(2 * torch.randn(500, generator=torch.Generator().manual_seed(1))),
    )
    quantizer.start_from(x)
    levels, grid = quantizer.codes(x, bits).numpy(), quantizer.grid(bits)
    assert levels.min() >= 0 and levels.max() < grid.levels
    np.testing.assert_allclose(quantizer.scale(bits) * grid.value(levels), quantizer.fake(x, bits).detach(), rtol=1e-5)


def test_a_mixture_is_the_sum_and_its_gradients():
    """Against autograd through the formula, the rounding passed straight through."""
    alpha, zeros = [0.9, 1.5, 2.0, 3.0], [0.5, 1.0, 5.0, 40.0]
    quantizer = made(alpha, zeros)
    x = (3 * torch.randn(400, generator=torch.Generator().manual_seed(2))).requires_grad_()
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4], requires_grad=True)
    weight = torch.randn(400, generator=torch.Generator().manual_seed(3))
    (quantizer.mix(x, probs) * weight).sum().backward()

    top, y = torch.tensor(alpha, requires_grad=True), x.detach().clone().requires_grad_()
    shares = probs.detach().clone().requires_grad_()
    total = torch.zeros(())
    for i, b in enumerate(BITS):
        n, z = 2**b - 1, zeros[i]
        low = -top[i] * z / (n - z)
        clipped = torch.minimum(torch.maximum(y, low), top[i])
        inside = (y > low) & (y < top[i])
        value = quantizer.fake(x.detach(), b).detach()
        passed = torch.where(inside, value + y - y.detach(), clipped)  # where a range ends, its end moves
        total = total + (shares[i] * (passed - passed.detach() + value) * weight).sum()
    total.backward()
    for found, wanted in ((x.grad, y.grad), (quantizer.alpha.grad, top.grad), (probs.grad, shares.grad)):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_ranges_start_where_the_error_is_least():
    draw = torch.Generator().manual_seed(4)
    normal = ZeroPoint(BITS)
    normal.start_from(torch.randn(8000, generator=draw))
    assert normal.zeros.tolist()[0] == 0.5 and normal.alpha[0].item() == pytest.approx(0.8, abs=0.1)  # E|x|
    assert 100 < normal.zeros[3] < 155
    swish = ZeroPoint(BITS)
    swish.start_from(torch.nn.functional.silu(2 * torch.randn(8000, generator=draw)))
    assert swish.zeros[3] < 30  # few codes below 0
    positive = ZeroPoint(BITS)
    positive.start_from(torch.rand(8000, generator=draw))
    assert not positive.zeros[1:].any() and positive.alpha[3].item() == pytest.approx(1, rel=0.05)
    nothing = ZeroPoint(BITS)
    nothing.start_from(torch.zeros(8))
    assert torch.equal(nothing.alpha, torch.ones(4))


def test_bfloat16_stays_bfloat16():
    quantizer, x = made([2.0], [1.0], (2,)), torch.tensor([-3.0, 0.4, 9.0], dtype=torch.bfloat16, requires_grad=True)
    y = quantizer.fake(x, 2)
    y.sum().backward()
    assert y.dtype == torch.bfloat16 and y.tolist() == [-1, 0, 2] and x.grad.tolist() == [0, 1, 0]
