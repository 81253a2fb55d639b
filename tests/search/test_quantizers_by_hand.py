"""What each quantizer learns, starts from and says of itself, in small numbers."""

import pytest
import torch

from mpcompile.ir import grid as grids
from mpcompile.search import quantizers

BITS = (1, 2, 8)
X = torch.tensor([-1.0, 0.4, 0.9, 1.4, 5.0])


def test_pact_starts_from_what_is_positive():
    """Of 3 and 4: a root mean square of √12.5."""
    pact = quantizers.Pact(BITS)
    assert pact.clips().tolist() == pytest.approx([1.224, 1.952, 4.215])
    pact.start_from(torch.tensor([-50.0, 0.0, 3.0, 4.0]))
    assert pact.clips().tolist() == pytest.approx([c * 12.5**0.5 for c in (1.224, 1.952, 4.215)])
    pact.start_from(torch.tensor([-50.0, 0.0]))
    assert pact.clips().tolist() == pytest.approx([1.224, 1.952, 4.215])


def test_values_below_one_count_where_clips_start():
    """Of 0.3 and 0.4: a root mean square of √0.125."""
    pact = quantizers.Pact(BITS)
    pact.start_from(torch.tensor([-50.0, 0.3, 0.4]))
    assert pact.clips().tolist() == pytest.approx([c * 0.125**0.5 for c in (1.224, 1.952, 4.215)])


def test_edmips_divides_by_the_deviation_whatever_its_size():
    """Of −0.03 and 0.04: √0.00125. What its levels are is no state: it is not in a checkpoint."""
    edmips = quantizers.EdMIPS(BITS)
    small = torch.tensor([-0.03, 0.04])
    assert edmips.values(small).tolist() == pytest.approx([-0.03 / 0.00125**0.5, 0.04 / 0.00125**0.5])
    assert "tops" not in edmips.state_dict()


def test_a_fixed_clip_is_not_learned_and_the_same_for_all():
    fixed = quantizers.Pact(BITS, 2.0)
    fixed.start_from(10 * X)
    assert fixed.clips().tolist() == [2.0, 2.0, 2.0] and not list(fixed.parameters())
    assert [p.shape for p in quantizers.Pact(BITS).parameters()] == [(3,)]


def test_a_clip_never_reaches_zero():
    pact = quantizers.Pact(BITS)
    with torch.no_grad():
        pact.alpha.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    assert pact.clips().tolist() == pytest.approx([1e-4, 1e-4, 2.0])


def test_pact_in_numbers():
    pact = quantizers.Pact(BITS, 2.0)
    assert [pact.scale(b) for b in BITS] == pytest.approx([2.0, 2 / 3, 2 / 255])
    assert pact.codes(X, 2).tolist() == [0, 1, 1, 2, 3] and pact.codes(X, 2).dtype == torch.int64
    assert pact.codes(X, 1).tolist() == [0, 0, 0, 1, 1]
    assert pact.real(X).tolist() == pytest.approx([0.0, 0.4, 0.9, 1.4, 5.0])
    assert [pact.grid(b) for b in BITS] == [grids.unsigned(b) for b in BITS]


def test_edmips_in_numbers():
    """Of deviation 1 without its mean: ±3 and ±4 have a root mean square of √12.5."""
    w = torch.tensor([3.0, -3.0, 4.0, -4.0])
    edmips = quantizers.EdMIPS(BITS)
    assert edmips.clips().tolist() == pytest.approx([1.596 / 2, 0.996 * 3 / 2, 0.0308 * 255 / 2])
    assert [edmips.scale(b) for b in BITS] == pytest.approx([1.596 / 2, 0.996 / 2, 0.0308 / 2])
    assert edmips.real(w).tolist() == pytest.approx((w / 12.5**0.5).tolist())
    assert edmips.real(w + 100).mean() > 0.9  # by size, not by spread
    assert edmips.codes(w, 2).tolist() == [2, 1, 3, 0]
    assert edmips.grid(2) == grids.odd(2)


def test_dorefa_in_numbers():
    w = torch.tensor([0.5, -1.0, 0.0])
    dorefa = quantizers.DoReFa(BITS)
    assert dorefa.clips().tolist() == [1.0, 1.0, 1.0]
    assert [dorefa.scale(b) for b in BITS] == pytest.approx([1.0, 1 / 3, 1 / 255])
    assert dorefa.real(w).tolist() == pytest.approx([0.46212 / 0.76159, -1.0, 0.0], abs=1e-4)
    assert dorefa.codes(w, 2).tolist()[:2] == [2, 0] and dorefa.grid(2) == grids.odd(2)


@pytest.mark.parametrize("kind", quantizers.WEIGHTS.values())
def test_weights_that_are_all_zero_stay_so(kind):
    assert kind(BITS).real(torch.zeros(3)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", quantizers.WEIGHTS.values())
def test_tiny_weights_are_quantized_as_large_ones_are(kind):
    w = torch.tensor([1.0, -2.3, 3.0])
    torch.testing.assert_close(kind(BITS).fake(1e-6 * w, 2), kind(BITS).fake(1e-4 * w, 2))


@pytest.mark.parametrize("kind", [*quantizers.WEIGHTS.values(), *quantizers.ACTIVATIONS.values()])
def test_a_mixture_is_the_sum_of_its_candidates(kind):
    quantizer, probs = kind(BITS), torch.tensor([0.25, 0.5, 0.25])
    expected = sum(p * quantizer.fake(X, b) for p, b in zip(probs, BITS))
    torch.testing.assert_close(quantizer.mix(X, probs), expected)
