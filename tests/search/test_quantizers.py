"""Quantizers against their formulas, mixtures against the plain composition of their candidates."""

import numpy as np
import pytest
import torch

from mpcompile.search.mixture import PIECE, ClippedMixture, UnitMixture
from mpcompile.search.quantizers import ACTIVATIONS, WEIGHTS, DoReFa, Pact

BITS = (1, 2, 3, 4, 8)
BOTH = [*WEIGHTS.values(), *ACTIVATIONS.values()]


class StraightRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, g):
        return g


def plain(x, bits):
    n = 2**bits - 1
    return StraightRound.apply(n * x) / n


def values(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", BOTH)
def test_what_is_fake_quantized_lies_on_the_grid_at_its_codes(kind, bits):
    quantizer, x = kind(), 2 * values(50, 40)
    grid = quantizer.grid(bits)
    codes = quantizer.codes(x, bits).numpy()
    assert set(np.unique(codes)) == set(range(grid.levels)) or bits == 8
    np.testing.assert_allclose(
        quantizer.fake(x, bits).detach().numpy(), quantizer.scale(bits) * grid.value(codes), atol=1e-6
    )


def test_dorefa_by_hand():
    w = torch.tensor([-3.0, -0.1, 0.05, 1.0])
    t = np.tanh(w.numpy()) / (2 * np.tanh(3.0)) + 0.5
    np.testing.assert_allclose(DoReFa().fake(w, 2).numpy(), 2 * np.round(3 * t) / 3 - 1, atol=1e-6)
    assert DoReFa().fake(w, 1).tolist() == [-1, -1, 1, 1]
    assert torch.isfinite(DoReFa().fake(torch.zeros(3), 4)).all()


def test_pact_by_hand():
    x = torch.tensor([-1.0, 0.4, 0.9, 1.4, 5.0])
    assert Pact(2.0).fake(x, 1).tolist() == [0, 0, 0, 2, 2]
    np.testing.assert_allclose(Pact(2.0).fake(x, 2).detach().numpy(), [0, 2 / 3, 2 / 3, 4 / 3, 2], atol=1e-6)


def test_pact_gradients_are_the_paper_s():
    x = torch.tensor([-1.0, 0.4, 1.9, 2.5, 3.0], requires_grad=True)
    quantizer = Pact(2.0)
    quantizer.fake(x, 2).backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    assert x.grad.tolist() == [0, 2, 4, 0, 0]
    assert quantizer.alpha.grad.item() == 24


@pytest.mark.parametrize("shape", [(7,), (3, 5, 4, 6), (2, PIECE // 2 + 3)])
def test_the_mixture_of_units_is_the_sum_of_its_candidates(shape):
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    p = torch.softmax(values(len(BITS)), 0).requires_grad_()
    expected = sum(p[i] * plain(x, b) for i, b in enumerate(BITS))
    found = UnitMixture.apply(x, p, BITS)
    torch.testing.assert_close(found, expected)
    g = values(*shape, seed=2)
    for a, b in zip(torch.autograd.grad(found, (x, p), g), torch.autograd.grad(expected, (x, p), g), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_clipped_mixture_is_the_sum_of_its_candidates(layout):
    x = (2 * values(3, 8, 61, 43)).to(memory_format=layout).requires_grad_()
    p = torch.softmax(values(len(BITS)), 0).requires_grad_()
    alpha = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    expected = alpha * sum(p[i] * plain((x / alpha.detach()).clamp(0, 1), b) for i, b in enumerate(BITS))
    found = ClippedMixture.apply(x, alpha, p, BITS)
    torch.testing.assert_close(found, expected)
    g = values(3, 8, 61, 43, seed=2)  # contiguous, whatever x is
    to_x, to_alpha, to_p = torch.autograd.grad(found, (x, alpha, p), g)
    wanted_x, wanted_p = torch.autograd.grad(expected, (x, p), g)
    torch.testing.assert_close(to_x, wanted_x)
    torch.testing.assert_close(to_p, wanted_p)
    torch.testing.assert_close(to_alpha, g[x >= alpha].sum())


def test_gradients_that_nobody_asks_for_are_not_computed():
    x, alpha, p = (
        values(5, 5),
        torch.tensor(1.0, dtype=torch.float64),
        torch.tensor([0.25, 0.75], dtype=torch.float64).requires_grad_(),
    )
    assert torch.autograd.grad(ClippedMixture.apply(x, alpha, p, (1, 2)).sum(), p)[0].shape == (2,)


@pytest.mark.parametrize("kind", BOTH)
def test_a_mixture_of_one_is_that_one(kind):
    quantizer, x = kind(), values(100, dtype=torch.float32)
    for i, bits in enumerate(BITS):
        p = torch.nn.functional.one_hot(torch.tensor(i), len(BITS)).float()
        torch.testing.assert_close(quantizer.mix(x, p, BITS), quantizer.fake(x, bits))


def test_a_mixture_keeps_no_more_for_the_backward_pass_than_plain_training():
    """DESIGN's ≤ 1.2× memory, by the bytes that autograd holds."""
    from mpcompile.search.ebs import EBS
    from tests.search.nets import images, small

    network = small(bits=(1, 2, 3, 4), side=16)
    method, pixels = EBS(network), images(8, 16).pixels.float() / 255

    def held() -> int:
        storages: dict[int, int] = {}

        def note(t):
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            kept = network(pixels)
        assert kept.requires_grad
        return sum(storages.values())

    network.assign(network.uniform(2, 2))
    uniform = held()
    method.mix(network, 0.0, torch.Generator(), learn=True)
    assert held() <= 1.05 * uniform
