"""Quantizers against their formulas, mixtures against the plain composition of their candidates."""

import numpy as np
import pytest
import torch

from mpcompile.search.mixture import PIECE, Mixture
from mpcompile.search.quantizers import ACTIVATIONS, HALF_NORMAL_CLIP, LSQ, NORMAL_STEP, WEIGHTS, DoReFa, EdMIPS, Pact

BITS = (1, 2, 3, 4, 8)
BOTH = [*WEIGHTS.values(), *ACTIVATIONS.values()]


class StraightRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, g):
        return g


def values(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", BOTH)
def test_what_is_fake_quantized_lies_on_the_grid_at_its_codes(kind, bits):
    quantizer, x = kind(BITS), 2 * values(50, 40)
    grid = quantizer.grid(bits)
    codes = quantizer.codes(x, bits).numpy()
    assert set(np.unique(codes)) == set(range(grid.levels)) or bits == 8
    np.testing.assert_allclose(
        quantizer.fake(x, bits).detach().numpy(), quantizer.scale(bits) * grid.value(codes), atol=1e-6
    )


def test_edmips_by_hand():
    w = torch.tensor([-3.0, -0.4, 0.1, 1.0])
    size = np.sqrt((9 + 0.16 + 0.01 + 1) / 4)
    expected = (np.clip(np.floor(w.numpy() / size / 0.996), -2, 1) + 0.5) * 0.996
    np.testing.assert_allclose(EdMIPS(BITS).fake(w, 2).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(EdMIPS(BITS).fake(w, 1).numpy(), [-0.798, -0.798, 0.798, 0.798], rtol=1e-5)
    torch.testing.assert_close(EdMIPS(BITS).fake(100 * w, 3), EdMIPS(BITS).fake(w, 3))
    assert torch.isfinite(EdMIPS(BITS).fake(torch.zeros(3), 4)).all()


@pytest.mark.parametrize("bits", range(1, 9))
def test_steps_and_clips_have_the_least_error_for_a_normal_distribution(bits):
    x = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000)

    def error(clip, odd):
        part = x if odd else x[x > 0]
        top = torch.tensor([clip], dtype=torch.float64)
        return float((Mixture.apply(part, top, torch.ones(1), (bits,), odd) - part).square().mean())

    n = 2**bits - 1
    for clip, odd in ((NORMAL_STEP[bits] * n / 2, True), (HALF_NORMAL_CLIP[bits], False)):
        assert error(clip, odd) < min(error(0.98 * clip, odd), error(1.02 * clip, odd))


def test_dorefa_by_hand():
    w = torch.tensor([-3.0, -0.1, 0.05, 1.0])
    t = np.tanh(w.numpy()) / (2 * np.tanh(3.0)) + 0.5
    np.testing.assert_allclose(DoReFa(BITS).fake(w, 2).numpy(), 2 * np.round(3 * t) / 3 - 1, atol=1e-6)
    assert DoReFa(BITS).fake(w, 1).tolist() == [-1, -1, 1, 1]
    assert torch.isfinite(DoReFa(BITS).fake(torch.zeros(3), 4)).all()


def test_pact_by_hand():
    x = torch.tensor([-1.0, 0.4, 0.9, 1.4, 5.0])
    assert Pact(BITS, 2.0).fake(x, 1).tolist() == [0, 0, 0, 2, 2]
    np.testing.assert_allclose(Pact(BITS, 2.0).fake(x, 2).numpy(), [0, 2 / 3, 2 / 3, 4 / 3, 2], atol=1e-6)


def test_pact_gradients_are_the_paper_s():
    x = torch.tensor([-1.0, 0.4, 1.9, 2.5, 3.0], requires_grad=True)
    quantizer = Pact(BITS)
    with torch.no_grad():
        quantizer.alpha.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    quantizer.fake(x, 2).backward(torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    assert x.grad.tolist() == [0, 2, 4, 0, 0]
    assert quantizer.alpha.grad.tolist() == [0, 24, 0, 0, 0]


def plain(x, clips, probs, odd):
    """The mixture as autograd would have it."""
    total = 0
    for i, b in enumerate(BITS):
        n, clip = 2**b - 1, clips[i]
        low = -clip if odd else 0 * clip
        inside = x.clamp(low.item(), clip.item()) if odd else torch.minimum(torch.relu(x), clip)
        if odd:  # straight through everywhere
            inside = x + (inside - x).detach()
        step = (clip - low).detach() / n
        total = total + probs[i] * (StraightRound.apply((inside - low) / step) * step + low)
    return total


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(3, 8, 61, 43), (2, 1, 1, PIECE + 3)])
def test_the_mixture_is_the_sum_of_its_candidates(shape, layout, odd):
    x = (2 * values(*shape)).to(memory_format=layout).requires_grad_()
    p = torch.softmax(values(len(BITS)), 0).requires_grad_()
    clips = torch.tensor([0.9, 1.4, 1.7, 2.2, 3.1], dtype=torch.float64, requires_grad=not odd)
    expected, found = plain(x, clips, p, odd), Mixture.apply(x, clips, p, BITS, odd)
    torch.testing.assert_close(found, expected)
    g = values(*shape, seed=2)  # contiguous, whatever x is
    wanted = (x, p) if odd else (x, p, clips)
    for a, b in zip(torch.autograd.grad(found, wanted, g), torch.autograd.grad(expected, wanted, g), strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_gives_what_float32_gives_within_its_precision():
    x, g = values(4, 8, 9, 9, dtype=torch.float32), values(4, 8, 9, 9, dtype=torch.float32, seed=3)
    clips, p = torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0], requires_grad=True), torch.full((5,), 0.2, requires_grad=True)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        y = x.bfloat16().to(dtype).requires_grad_()
        found = Mixture.apply(y, clips, p, BITS, False)
        assert found.dtype == dtype
        results.append([found.float(), *(t.float() for t in torch.autograd.grad(found, (y, clips, p), g.to(dtype)))])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().mean() < 0.02 * b.abs().mean() + 0.02


def test_gradients_that_nobody_asks_for_are_not_computed():
    x, clips, p = values(5, 5), torch.ones(2, dtype=torch.float64), torch.tensor([0.25, 0.75]).requires_grad_()
    assert torch.autograd.grad(Mixture.apply(x, clips, p, (1, 2), False).sum(), p)[0].shape == (2,)


@pytest.mark.parametrize("kind", BOTH)
def test_a_mixture_of_one_is_that_one(kind):
    quantizer, x = kind(BITS), values(100, dtype=torch.float32)
    for i, bits in enumerate(BITS):
        p = torch.nn.functional.one_hot(torch.tensor(i), len(BITS)).float()
        torch.testing.assert_close(quantizer.mix(x, p), quantizer.fake(x, bits))


@pytest.mark.parametrize("kind", BOTH)
def test_no_candidate_is_much_larger_than_the_others(kind):
    """What a mixture is of: DoReFa's single bit is the exception, and why it is not the default."""
    quantizer, x = kind(BITS), values(100_000)
    if isinstance(quantizer, Pact):
        quantizer.start_from(x)
    sizes = [float(quantizer.fake(x, b).detach().square().mean().sqrt()) for b in BITS]
    assert (max(sizes) / min(sizes) < 1.3) == (kind is not DoReFa)


def test_a_mixture_keeps_no_more_for_the_backward_pass_than_plain_training():
    """DESIGN's ≤ 1.2× memory, by the bytes that autograd holds."""
    from mpcompile.search.methods.ebs import EBS
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


# -- LSQ ---------------------------------------------------------------------------------------------------------------
def lsq_of_the_paper(x, step, bits, g_scale):
    """Composed of torch's own operators, as LSQ's authors write it: gradient to the step scaled, rounding passed."""
    top = 2**bits - 1
    scaled = (step - step * g_scale).detach() + step * g_scale
    v = (x / scaled).clamp(0, top)
    return ((v.round() - v).detach() + v) * scaled


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_lsq_s_step_has_the_gradient_of_the_paper(bits):
    quantizer = LSQ((bits,))
    draw = torch.Generator().manual_seed(bits)
    x = (2 * torch.randn(3, 5, 4, 4, generator=draw)).requires_grad_()
    weight = torch.randn(x.shape, generator=draw)
    quantizer.start_from(x)
    step = quantizer.step.detach().clone().requires_grad_()
    expected = lsq_of_the_paper(x, step, bits, (80 * (2**bits - 1)) ** -0.5)
    found = quantizer.fake(x, bits)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    wanted = torch.autograd.grad((weight * expected).sum(), (x, step))
    got = torch.autograd.grad((weight * found).sum(), (x, quantizer.step))
    torch.testing.assert_close(got[0], wanted[0])
    torch.testing.assert_close(got[1], wanted[1], rtol=1e-4, atol=1e-4)


def test_lsq_s_step_by_hand():
    """v/s = 0.4, 1.3, 2.6 within, 7 above, −1 below, of three steps: −0.4 − 0.3 + 0.4 + 3, times 1/√(5·3)."""
    quantizer = LSQ((2,))
    with torch.no_grad():
        quantizer.step.fill_(0.5)
    quantizer.fake(torch.tensor([[0.2, 0.65, 1.3, 3.5, -0.5]]), 2).sum().backward()
    assert quantizer.step.grad.tolist() == pytest.approx([2.7 / 15**0.5], rel=1e-5)


def test_in_a_mixture_every_step_of_lsq_learns():
    quantizer = LSQ((1, 2, 4))
    draw = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 40, generator=draw), torch.randn(2, 40, generator=draw)
    quantizer.start_from(x)
    probs = torch.tensor([0.2, 0.5, 0.3])
    (weight * quantizer.mix(x, probs)).sum().backward()
    wanted = []
    for i, bits in enumerate(quantizer.bits):
        alone = LSQ((bits,))
        with torch.no_grad():
            alone.step.copy_(quantizer.step[i : i + 1])
        (probs[i] * weight * alone.fake(x, bits)).sum().backward()
        wanted.append(alone.step.grad.item())
    assert quantizer.step.grad.tolist() == pytest.approx(wanted, rel=1e-4) and all(abs(w) > 1e-4 for w in wanted)


def test_lsq_starts_where_its_paper_says_and_codes_are_what_is_computed():
    quantizer = LSQ((2, 8))
    x = torch.tensor([-9.0, 0.5, 1.0, 1.5])
    quantizer.start_from(x)
    assert quantizer.step.tolist() == pytest.approx([2 / 3**0.5, 2 / 255**0.5])
    for bits in (2, 8):
        torch.testing.assert_close(quantizer.fake(x, bits), quantizer.codes(x, bits) * quantizer.scale(bits))
