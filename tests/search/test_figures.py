"""The tables of benchmarks.search_figures, from numbers whose answers are known."""

import pytest

from benchmarks.search_tables import accuracy_at, front, markdown, summary, time_at


def row(seed, kind, name, accuracy, microseconds):
    return {
        "seed": seed,
        "kind": kind,
        "name": name,
        "accuracy": accuracy,
        "seconds": 1e-6 * microseconds,
        "predicted": 1e-6 * microseconds,
    }


ROWS = [
    *(row(s, "uniform", "w1a1", 0.80 + s / 100, 20) for s in (0, 1)),
    *(row(s, "uniform", "w2a2", 0.85, 60) for s in (0, 1)),
    row(0, "latency", "latency-w2a2", 0.88, 60),
    row(1, "latency", "latency-w2a2", 0.84, 54),
    row(0, "bitops", "bitops-4", 0.84, 60),
    row(1, "bitops", "bitops-4", 0.86, 60),
]


def test_a_front_has_no_point_that_another_beats():
    assert front(ROWS[:1] + ROWS[2:3] + ROWS[4:5]) == [(0.80, pytest.approx(2e-5)), (0.88, pytest.approx(6e-5))]


def test_times_lie_on_lines_between_points():
    points = [(0.80, 2.0), (0.90, 4.0)]
    assert time_at(points, 0.85) == pytest.approx(3.0) and time_at(points, 0.7) == 2.0 and time_at(points, 0.9) == 4.0
    assert time_at(points, 0.91) is None and time_at([], 0.5) is None


def test_accuracies_lie_on_lines_between_points():
    points = [(0.80, 2.0), (0.90, 4.0)]
    assert accuracy_at(points, 3.0) == pytest.approx(0.85) and accuracy_at(points, 2.0) == 0.80
    assert accuracy_at(points, 9.0) == 0.90 and accuracy_at(points, 1.9) is None and accuracy_at([], 1.0) is None


def test_each_uniform_network_against_the_searched_ones_at_its_time():
    floor, found = summary(ROWS)["uniform"]
    assert floor["name"] == "w1a1" and floor["gain"]["mean"] == 0 == floor["wins"] + floor["losses"]
    assert found["name"] == "w2a2" and (found["wins"], found["losses"]) == (1, 1)
    assert found["gain"]["mean"] == pytest.approx(0.01) and found["gain"]["deviation"] == pytest.approx(0.02 * 2**0.5)
    assert found["target"]["time"]["mean"] == pytest.approx(0.95) and floor["target"] is None


def test_the_objectives_at_equal_accuracy():
    (found,) = summary(ROWS)["objectives"]
    assert found["ratio"]["seeds"] == 1 and found["not_reached"] == 1  # seed 1's front ends at 84 %
    assert found["ratio"]["mean"] == pytest.approx(60 / 40) and found["faster"] == 1


def test_the_tables_as_text():
    about = {
        "sizes": {"train": 5, "test": 6, "side": 20, "widths": [8], "blocks": [1], "float_epochs": 4, "epochs": 2},
        "data": "bars",
        "measured_on": {"cpu": "a CPU", "threads": "1"},
        "race": "21 rounds",
    }
    text = markdown(summary(ROWS) | about)
    assert "| W2A2 | 60 µs | 85.00% ± 0.00 | 86.00% ± 2.83 | +1.00 ± 2.83 | 1, 1 | 86.00% ± 2.83 | 0.95 |" in text
    assert "| 4 | 85.00% ± 1.41 | 60 µs | 1.50 | 1 of 2; 1 not reached |" in text
