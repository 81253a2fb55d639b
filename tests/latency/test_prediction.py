"""The benchmark of predictions, on a network that compiles in no time."""

import numpy as np
import pytest

from benchmarks import prediction
from benchmarks.networks import Bits, ConvShape, conv_layer
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.requantize import knobs

SMALL = prediction.Subject(
    "one layer", lambda path: conv_layer(ConvShape(64, 8, 64), Bits(2, 2)).save(path), BitCandidates.parse("w1a12")
)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(prediction, "ASSIGNMENTS", 2)


def test_rows_of_a_small_network(few, tmp_path):
    said = []
    raw, calibrated = prediction.rows(tmp_path, 3, subjects=[SMALL], say=said.append)
    assert raw.target == calibrated.target == 5 and "guessing the median" in raw.note
    assert "from 1 uniform networks" in calibrated.note
    assert len(raw.detail["predicted"]) == len(raw.detail["measured"]) == 3
    assert 0 <= raw.value <= raw.detail["largest"] and min(raw.detail["measured"]) > 0
    assert sum("compiling" in line for line in said) == 3
    said.clear()
    prediction.rows(tmp_path, 3, subjects=[SMALL], say=said.append)
    assert said == ["timing 3 networks"]


def test_assignments_are_random_and_always_the_same(tmp_path):
    SMALL.save(tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx")
    found = prediction.assignments(graph, SMALL)
    assert found == prediction.assignments(graph, SMALL) and len(found) == 1 + prediction.ASSIGNMENTS
    assert found[0] == {"conv": (1, 1), "tail": (1, 1)} and len({str(f) for f in found[1:]}) > 2
    at = prediction.at(graph, found[5])
    assert {k: (knob.w, knob.a) for k, knob in knobs(at).items()} == found[5]


def test_errors_are_relative_to_what_was_measured():
    np.testing.assert_allclose(prediction._errors(np.array([90.0, 110.0]), np.array([100.0, 100.0])), [10, 10])
