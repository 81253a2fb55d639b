"""Post-training quantization of a network that reads digits: what it costs in answers, and what budgets win."""

import pytest

import mpcompile as mp
from tests.ptq.digits import accuracy, answers, float_answers, images, trained

POINT = 0.01


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(float file, calibration images, test images, their labels)"""
    (x, _), test = images()
    return trained(tmp_path_factory.mktemp("digits") / "float.onnx"), x[:256], *test


@pytest.fixture
def quantized(digits, tmp_path):
    source, x, *_ = digits
    return lambda **how: mp.quantize(source, x, tmp_path / "q.onnx", **how)


def read(digits, found) -> float:
    """The share of test images that the file reads right."""
    *_, x, labels = digits
    return accuracy(answers(found.path, x), labels)


def test_eight_bits_lose_less_than_a_point(digits, quantized):
    source, _, x, labels = digits
    float_accuracy = accuracy(float_answers(source, x), labels)
    assert float_accuracy > 0.6
    assert abs(read(digits, quantized(bits="w8a8")) - float_accuracy) <= POINT


def test_the_least_error_beats_the_ends(digits, quantized):
    least, ends = quantized(bits="w4a4"), quantized(bits="w4a4", ranges="minmax")
    assert least.loss < 0.95 * ends.loss
    assert read(digits, quantized(bits="w4a4")) >= read(digits, quantized(bits="w4a4", ranges="minmax")) - POINT


@pytest.mark.parametrize("bits", ["w3a3", "w4a4"])
@pytest.mark.parametrize("budget", ["latency", "size", "bitops"])
def test_mixed_bits_beat_uniform_ones_of_their_cost(digits, quantized, budget, bits):
    """On the Pi 4 as its cost model expects it: the budget is kept, and what uniform bits give is not lost."""
    uniform = quantized(bits=bits)
    uniform_read = read(digits, uniform)
    mixed = quantized(**{budget: bits}, target="rpi4b", candidates="w2348a2348")
    (cost,) = mixed.costs
    assert cost.cost <= cost.limit * (1 + 1e-9) and cost.modelled == (budget == "latency")
    assert mixed.loss <= 1.02 * uniform.loss and read(digits, mixed) >= uniform_read - POINT


def test_mixed_bits_win_where_bits_are_few(digits, quantized):
    uniform = quantized(bits="w3a3")
    uniform_read = read(digits, uniform)
    mixed = quantized(bitops="w3a3")
    assert mixed.loss < 0.8 * uniform.loss and read(digits, mixed) > uniform_read + POINT


def test_several_budgets_at_once(quantized):
    found = quantized(bitops="w4a4", size="22 KiB", mean_bits=5, candidates="w248a248")
    assert [cost.kind for cost in found.costs] == ["size", "bitops", "mean"]
    assert all(cost.cost <= cost.limit * (1 + 1e-9) for cost in found.costs)
    assert found.weight_bytes == found.costs[0].cost and found.bitops == found.costs[1].cost
    tighter = quantized(bitops="w4a4", size="15 KiB", mean_bits=5, candidates="w248a248")
    assert tighter.weight_bytes <= 15 * 1024 < found.weight_bytes
