"""The latency table against a device whose truth is a formula: what it predicts must be what the formula says."""

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpcompile.errors import ModelError, UsageError
from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.cache import Cache, CellTime
from mpcompile.latency.profile import build_table
from mpcompile.latency.requantize import knobs, requantize
from mpcompile.latency.table import LatencyTable
from tests.latency.networks import branching
from tests.latency.simulated import Simulated
from tests.patience import until

W, A = [1, 2, 4], [1, 2, 3, 8]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(branching(tmp_path_factory.mktemp("model") / "m.onnx"))


@pytest.fixture(scope="module")
def table(model, tmp_path_factory):
    return build_table(model, BitCandidates.of(W, A), Simulated(), Cache(tmp_path_factory.mktemp("cache") / "cells"))


def assignments(graph, seed):
    """Random bits for every convolution; those that read one quantizer agree."""
    rng = np.random.default_rng(seed)
    found = knobs(graph)
    bits = {q: int(rng.choice(A)) for k in found.values() for q in k.quantizers}
    return {name: (int(rng.choice([*W, k.w])), bits[k.quantizers[0]]) for name, k in found.items()}


def at(graph, assignment):
    found = knobs(graph)
    return requantize(
        graph,
        {k: w for k, (w, _) in assignment.items()},
        {q: a for k, (_, a) in assignment.items() for q in found[k].quantizers},
    )


def test_the_model_as_it_is(model, table):
    assert table.predict() == pytest.approx(Simulated().network(model), rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_any_assignment_of_bits(model, table, seed):
    assignment = assignments(model, seed)
    assert table.predict(assignment) == pytest.approx(Simulated().network(at(model, assignment)), rel=1e-9)


def test_prediction_tells_assignments_apart(model, table):
    assert len({round(table.predict(assignments(model, seed)) * 1e9) for seed in range(12)}) > 8


def test_every_cell_is_there_and_the_cheapest_format_wins(table):
    lut = table.layers[table.contractions["c0"].layer].reads["c0"]
    assert set(lut) == {(w, a) for w in W for a in A}
    assert table.format("c0", 1, 1) == "planes" and table.format("c0", 4, 8) == "codes"
    assert table.latency("c0", 2, 2) == min(lut[2, 2].values())
    assert table.latency("c0", 2, 2, "codes") > table.latency("c0", 2, 2, "planes")
    assert table.matrix("c0").shape == (3, 4) and (np.diff(table.matrix("c0")[0]) >= 0).all()
    assert table.pack("q1", 2) == 0 and table.pack("q1", 3, "planes") > table.pack("q1", 2, "planes")


def test_what_cannot_win_is_not_measured_and_says_so(model, table):
    """POPCOUNT and DOT cross at 5.3 pairs of planes."""
    lut = table.layers[table.contractions["c0"].layer].reads["c0"]
    assert {pair for pair, cell in lut.items() if "planes" in cell} >= {(w, a) for w in W for a in A if w * a <= 5}
    assert not [pair for pair, cell in lut.items() if "planes" in cell and pair[0] * pair[1] > 8]
    with pytest.raises(UsageError, match="W4A8 of c0 read as planes.* it has codes"):
        table.latency("c0", 4, 8, "planes")
    assert set(table.layers[table.contractions["c0"].layer].packs["q1"][8]) == {"codes"}
    with pytest.raises(UsageError, match="A8 of quantizer q1 written as planes.* it has codes"):
        table.pack("q1", 8, "planes")


def test_progress_counts_down_to_what_is_measured(model, tmp_path):
    told = []
    bench = Simulated()
    cache = Cache(tmp_path / "cells")
    build_table(model, BitCandidates.of(W, A), bench, cache, progress=lambda done, total: told.append((done, total)))
    assert told[0][0] == 0 and told[-1][0] == told[-1][1] == len(cache)
    assert [d for d, _ in told] == sorted(d for d, _ in told) and told[0][1] > told[-1][1]
    again = []
    build_table(model, BitCandidates.of(W, A), bench, cache, progress=lambda done, total: again.append((done, total)))
    assert again[-1] == told[-1]


def cell(key: str) -> CellTime:
    return CellTime(key, "layer", "base", "", (), "", f"kernel of {key}", 2e-4, 1e-4, 3e-4, "a CPU", 1e-5)


def test_what_a_full_disk_cut_is_said_and_spoils_nothing_after_it(tmp_path):
    """The limit of a file's size stands for the disk's: a write takes what there is room for, the next one fails."""
    cache = Cache(tmp_path / "cells")
    cache.put([cell("a")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (cache.path.stat().st_size + 5, limits[1]))
    try:
        with pytest.raises(UsageError, match="cannot write the cache .*cells: File too large"):
            cache.put([cell("b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    cache.put([cell("c")])
    assert [line.key for line in cache] == [line.key for line in Cache(cache.path)] == ["a", "c"]


def test_layers_that_read_one_quantizer_must_agree(table):
    with pytest.raises(UsageError, match="down and c0 read the same q0"):
        table.predict({"c0": (1, 2), "down": (1, 3)})


@pytest.mark.parametrize("ask", [{"nobody": (1, 1)}, {"c0": (7, 2)}, {"c0": (1, 5)}])
def test_what_was_not_measured_is_refused(table, ask):
    with pytest.raises(UsageError, match="has no"):
        table.predict(ask)


def test_layers_of_one_shape_are_measured_once(tmp_path):
    from benchmarks.networks import Builder

    b = Builder(0)
    b.values["x"] = np.abs(np.random.default_rng(1).normal(size=(16, 8, 8))).astype(np.float32)
    x = "x"
    for i in range(4):
        x = b.relu(b.batch_norm(b.conv(b.activation(x, 2, f"q{i}"), 16, 3, 1, 2, f"c{i}"), f"bn{i}"), f"r{i}")
    b.network("x", b.activation(x, 2, "last")).save(tmp_path / "m.onnx")
    bench = Simulated()
    table = build_table(load(tmp_path / "m.onnx"), BitCandidates.of([1, 2], [2, 4]), bench, Cache(tmp_path / "cells"))
    assert len(table.contractions) == 4
    count = len({id(cell) for row in table.layers.values() for cells in row.reads.values() for cell in cells.values()})
    assert bench.timed < 2 * count
    again = Simulated()
    build_table(load(tmp_path / "m.onnx"), BitCandidates.of([1, 2], [2, 4]), again, Cache(tmp_path / "cells"))
    assert again.timed == 0
    more = Simulated()
    build_table(load(tmp_path / "m.onnx"), BitCandidates.of([1, 2, 3], [2, 4]), more, Cache(tmp_path / "cells"))
    assert 0 < more.timed < bench.timed
    other = Simulated()
    other.identity = {"cpu": "another formula"}
    build_table(load(tmp_path / "m.onnx"), BitCandidates.of([1, 2], [2, 4]), other, Cache(tmp_path / "cells"))
    assert other.timed == bench.timed


def test_on_disk_and_back(table, tmp_path):
    table.save(tmp_path / "lut.json")
    again = LatencyTable.load(tmp_path / "lut.json")
    assert again == table
    assert again.predict({"c2": (4, 8)}) == table.predict({"c2": (4, 8)})


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"latency_table": 99}', '{"latency_table": 2, "layers": {"a": 3}}', "\x00"]
)
def test_a_file_that_is_no_table(tmp_path, text):
    (tmp_path / "lut.json").write_text(text)
    with pytest.raises(ModelError, match="lut.json"):
        LatencyTable.load(tmp_path / "lut.json")
    with pytest.raises(UsageError):
        LatencyTable.load(tmp_path / "absent.json")


WORKER = """
import sys
from mpcompile.ir.bits import BitCandidates
sys.path.insert(0, sys.argv[3])
from mpcompile.frontend import load
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from tests.latency.simulated import Simulated
bench = Simulated(pause=float(sys.argv[4]))
table = build_table(load(sys.argv[1]), BitCandidates.of([1, 2, 4], [1, 2, 3, 8]), bench, Cache(sys.argv[2]))
table.save(sys.argv[2] + ".json")
print(bench.timed)
"""


def test_a_killed_build_goes_on_where_it_was(table, tmp_path):
    model, cells = branching(tmp_path / "m.onnx"), tmp_path / "cells"
    command = [sys.executable, "-c", WORKER, model, str(cells), str(Path(__file__).parents[2])]
    first = subprocess.Popen([*command, "0.2"], stdout=subprocess.PIPE)  # slow: it must not end before it is killed
    until(
        lambda: cells.exists() and cells.read_bytes().count(b"\n") >= 10,
        unless=lambda: first.poll() is not None and f"it ended with {first.returncode}",
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = len(Cache(cells))
    assert kept >= 10 and not Path(f"{cells}.json").exists()
    cells.write_bytes(cells.read_bytes() + b'{"key": "cut sho')
    second = subprocess.run([*command, "0"], capture_output=True, text=True, check=True)
    measured = int(second.stdout)
    assert 0 < measured == len(Cache(cells)) - kept
    again = json.loads(Path(f"{cells}.json").read_text())
    expected = json.loads(json.dumps(table.to_json()))
    assert {k: v for k, v in again.items() if k != "model"} == {k: v for k, v in expected.items() if k != "model"}
