"""How many cells are timed and built together, and what a kill in the middle of it costs: those, and no other."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mpcompile.api.cell_batches import FIRST, MOST, SECONDS, BuiltTogether, Pace
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import BATCHES, build_table
from tests.latency.networks import branching
from tests.latency.simulated import Simulated
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests" / "data" / "brevitas_mlp_w3a3.onnx"


@pytest.mark.parametrize(
    "seconds, count, fits",
    [(SECONDS, 4, 4), (SECONDS / 2, 4, 8), (2 * SECONDS, 8, 4), (90.0, 4, 1), (1e-6, 4, MOST), (0.0, 1, MOST)],
)
def test_as_many_as_fit_into_the_time(seconds, count, fits):
    pace = Pace()
    assert pace.at_once == FIRST
    pace.took(seconds, count)
    assert pace.at_once == fits


def test_small_batches_are_built_together_each_once():
    calls = []

    def build(kernels):
        calls.append("".join(kernels))
        return [kernel.upper() for kernel in kernels]

    built = BuiltTogether(["a", "bc", "d", "efg", "h"], build, cores=3)
    assert [built.take(at) for at in (0, 1, 3)] == [["A"], ["B", "C"], ["E", "F", "G"]] and calls == ["abc", "efg"]
    assert built.take(2) == ["D"] and built.take(4) == ["H"] and calls == ["abc", "efg", "dh"]
    assert built.take(1) == ["B", "C"] and calls[3:] == ["bc"]  # asked for again, as when its device was lost


class Paced(Simulated):
    """It grows slower as it goes."""

    at_once, devices_at_once = 2, 3

    def __init__(self):
        super().__init__()
        self.calls = []

    def time(self, batches, done):
        self.calls.append([len(batch) for batch in batches])
        super().time(batches, done)
        self.at_once = 1


def test_the_pace_is_asked_anew_for_each_share_of_a_wave(tmp_path):
    graph, bits = load(branching(tmp_path / "m.onnx")), BitCandidates.of(range(1, 9), range(1, 9))
    bench, usual = Paced(), Simulated()
    assert build_table(graph, bits, bench, Cache(tmp_path / "a")) == build_table(
        graph, bits, usual, Cache(tmp_path / "b")
    )
    assert bench.timed == usual.timed == sum(map(sum, bench.calls))
    assert set(bench.calls[0]) == {2} and len(bench.calls[0]) == 3 * BATCHES
    assert {size for call in bench.calls[1:] for size in call} == {1}
    assert max(map(len, bench.calls)) == 3 * BATCHES


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_kill_within_a_measurement_costs_that_one_alone(tmp_path):
    """By SIGKILL after the first round of the third: what the first two measured is on disk, and is not measured again."""
    cells, log = tmp_path / "cells", tmp_path / "log"
    command = [sys.executable, "-m", "tests.latency.killed_profile", MODEL, cells, log]
    killed = subprocess.run([*command, "3"], cwd=ROOT, timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    words = [line.split() for line in lines(log)]
    assert [word for word, _ in words] == ["begin", "end", "begin", "end", "begin"]
    ended = sum(int(count) for word, count in words if word == "end")
    kept = lines(cells)
    assert len({json.loads(line)["kernel"] for line in kept}) == ended
    log.unlink()
    subprocess.run(command, cwd=ROOT, timeout=PATIENCE, check=True)
    assert lines(cells)[: len(kept)] == kept
    rows = [json.loads(line) for line in lines(cells)]
    again = sum(int(count) for word, count in (line.split() for line in lines(log)) if word == "end")
    assert len({row["key"] for row in rows}) == len(rows)
    assert again == len({row["kernel"] for row in rows}) - ended + 1  # and the network itself, which is no cell
