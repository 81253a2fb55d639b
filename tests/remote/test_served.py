"""The verbs on devices that are processes of this machine, served and lent as real ones are: side by side, one slow, one
killed."""

import json
import math

import numpy as np
import onnx
import pytest

import mpcompile as mp
from mpcompile.api.pool_workbench import PoolWorkbench
from mpcompile.cli import main
from mpcompile.errors import TargetError, UsageError
from mpcompile.ir.bits import BitCandidates
from mpcompile.latency.cache import Cache
from mpcompile.latency.profile import build_table
from mpcompile.remote.pool import DevicePool, open_pool
from mpcompile.targets import cpu, load_target
from tests.latency.interrupted import interrupted_profile
from tests.remote.served import ROOT, Farm, kill
from tests.search.small_config import small_config

MODEL = ROOT / "tests/data/brevitas_cnn_w2a2.onnx"
TARGET = "x86-64-v2"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two devices; the second is slow while the file `slow` exists."""
    slow = tmp_path_factory.mktemp("farm") / "slow"
    with Farm() as found:
        found.slow = slow
        found.serve()
        found.serve(PYTHONPATH=str(ROOT / "tests/remote/slow"), SLOW_DEVICE=str(slow))
        yield found


@pytest.fixture
def farm(served):
    """Both are free."""
    served.wait(2)
    return served


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return mp.compile(MODEL, target="x86-64", output=tmp_path_factory.mktemp("bundle") / "m.mpc")


def table(pool, file, progress=None):
    """Of MODEL, its cells kept in `file`."""
    graph = mp.load(MODEL)
    bench = PoolWorkbench(load_target(TARGET), pool, threads=1, rounds=1).among(graph)
    return build_table(graph, BitCandidates.of([1, 2], [1, 2]), bench, Cache(file), progress=progress)


def cells(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_table_is_built_on_both_and_is_the_one_that_is_built_here(farm, tmp_path):
    with open_pool(farm.tracker, farm.key) as pool:
        pool.slower = math.inf  # this machine's other work must not keep one of them out
        found = table(pool, tmp_path / "cells")
        assert len(pool.tallies) == 2 and all(tally.measured for tally in pool.tallies.values())
    rows = cells(tmp_path / "cells")
    assert len({row["key"] for row in rows}) == len(rows)  # none was measured twice
    with DevicePool.local() as pool:
        pool.slower = math.inf
        here = table(pool, tmp_path / "cells")
        assert cells(tmp_path / "cells") == rows  # this machine is of their kind: none is missing
        assert here == found


def test_a_slow_device_is_named_and_leaves_no_number(farm, tmp_path):
    lines = []
    farm.slow.touch()
    try:
        with open_pool(farm.tracker, farm.key, warn=lines.append) as pool:
            table(pool, tmp_path / "cells")
    finally:
        farm.slow.unlink()
    assert [
        line
        for line in lines
        if "times slower than the others, by the reference kernel: its numbers are kept out" in line
    ]
    assert sorted(bool(tally.measured) for tally in pool.tallies.values()) == [False, True]
    references = [row["reference"] for row in cells(tmp_path / "cells")]
    assert max(references) < 3 * min(references)


def test_profile_shows_the_layers_and_the_devices(farm, capsys):
    command = ["profile", str(MODEL), "--target", TARGET, "--threads", "1", "--rounds", "1"]
    assert main([*command, *farm.options]) == 0
    said = capsys.readouterr().out
    assert "/12/Gemm" in said and "whole network" in said and said.count("box at 127.0.0.1") == 2


def test_run_gives_the_same_there_bit_for_bit(farm, bundle, tmp_path):
    rng = np.random.default_rng(0)
    with mp.open_bundle(bundle) as opened:
        x = rng.normal(size=(3, *opened.inputs[0].shape)).astype(np.float32)
        expected = opened.run(x)
    np.savez(tmp_path / "x.npz", x=x)
    threads = min(2, len(cpu.allowed()))
    for variant in ("x86-64-v3", None):
        chosen = ["--variant", variant] if variant else []
        command = [
            "run",
            str(bundle),
            "--input",
            str(tmp_path / "x.npz"),
            "--output",
            str(tmp_path / "y.npz"),
            *chosen,
            "--threads",
            str(threads),
            "--json",
            str(tmp_path / "run.json"),
            *farm.options,
        ]
        assert main(command) == 0
        (found,) = np.load(tmp_path / "y.npz").values()
        np.testing.assert_array_equal(found, expected)
        told = json.loads((tmp_path / "run.json").read_text())
        assert told["device"].startswith("box at 127.0.0.1") and told["threads"] == threads
        assert told["variant"] == variant or variant is None


def test_bench_times_bundle_and_onnx_runtime_there(farm, bundle, tmp_path):
    other, apart = ROOT / "tests/data/ort_qdq_int8.onnx", tmp_path / "apart.onnx"
    onnx.save(onnx.load(other), apart, save_as_external_data=True, location="apart.data", size_threshold=0)
    command = [
        "bench",
        str(bundle),
        "--vs-onnx",
        str(other),
        "--vs-onnx",
        str(apart),
        "--threads",
        "1",
        "--rounds",
        "1",
        *farm.options,
    ]
    assert main([*command, "--json", str(tmp_path / "bench.json")]) == 0
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["device"].startswith("box at") and set(told["timings"]) == {
        bundle.name,
        f"ONNX Runtime, {other.name}",
        f"ONNX Runtime, {apart.name}",
    }
    assert all(t["seconds"] > 0 for t in told["timings"].values()) and len(told["ratios"]) == 2


def test_a_search_is_measured_there(farm, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = {f"{part}_images": rng.integers(0, 255, (48, 8, 8), dtype=np.uint8) for part in ("train", "test")}
    labels = {f"{part}_labels": (np.arange(48) % 4).astype(np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "bars.npz", **images, **labels)
    (tmp_path / "search.toml").write_text(
        small_config(
            data={"path": "bars.npz"},
            search={"activations": [1, 8], "warmup": 0.2},
            baselines={"uniform": ["w1a1"], "int8": True},
            measure={"target": TARGET, "tracker": farm.tracker, "key": farm.key},
        )
    )
    out = tmp_path / "run"
    assert main(["search", str(tmp_path / "search.toml"), "-o", str(out), "--no-report"]) == 0
    said = capsys.readouterr()
    assert "All 2 compiled networks equal the exact reference in every buffer" in said.out
    assert "box at 127.0.0.1" in said.err and "measurement" in said.err
    assert cells(out / "LUT.json.cells")
    front = json.loads((out / "front.json").read_text())
    assert all(p["raced"] > 0 for p in front["points"]) and any(p["kind"] == "int8" for p in front["points"])
    record = json.loads((out / "run.json").read_text())
    assert record["machine"]["devices"] == f"box at {farm.tracker}" and record["device"]["target"] == TARGET


def test_what_cannot_be_done_there_is_said_before_anything_is_built(farm):
    with open_pool(farm.tracker, farm.key) as pool:
        with pytest.raises(UsageError, match="name its board; it can run what is built for .*x86-64-v2"):
            mp.profile(MODEL, pool=pool)
        with pytest.raises(TargetError, match="cannot run what is built for rpi4b: it is x86_64"):
            mp.profile(MODEL, "rpi4b", pool=pool)
        with pytest.raises(UsageError, match="4097 threads asked for"):
            mp.profile(MODEL, TARGET, threads=4097, pool=pool)
    with pytest.raises(TargetError, match="no device of key nobody: it has box"):
        mp.profile(MODEL, TARGET, tracker=farm.tracker, key="nobody")


@pytest.mark.parametrize(
    "options, says",
    [
        (["--key", "box"], "--tracker HOST:PORT, or MPCOMPILE_TRACKER"),
        (["--tracker", "h:1"], "--key"),
        (["--tracker", "h:0", "--key", "box"], "no HOST:PORT"),
    ],
)
@pytest.mark.parametrize("verb", [["profile"], ["bench"], ["run", "--input", "x.npz", "--output", "y.npz"]])
def test_half_of_an_address_is_a_usage_error(bundle, monkeypatch, capsys, verb, options, says):
    monkeypatch.delenv("MPCOMPILE_TRACKER", raising=False)
    file = MODEL if verb == ["profile"] else bundle
    assert main([verb[0], str(file), *verb[1:], *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_a_device_killed_in_the_middle_changes_nothing(farm, tmp_path):
    """Power goes while it measures: the others do its work."""
    victim = farm.serve()
    farm.wait(3)
    lines = []

    def progress(done, total):
        if done and victim.process.poll() is None:
            kill(victim)

    with open_pool(farm.tracker, farm.key, warn=lines.append) as pool:
        pool.slower = math.inf
        found = table(pool, tmp_path / "cells", progress)
    assert len(pool.tallies) == 3 and sum(tally.lost for tally in pool.tallies.values()) == 1
    assert len([line for line in lines if "the connection was lost" in line]) == 1
    with DevicePool.local() as pool:
        pool.slower = math.inf
        rows = cells(tmp_path / "cells")
        assert table(pool, tmp_path / "cells") == found and cells(tmp_path / "cells") == rows


def test_an_interrupt_ends_at_once_and_leaves_what_was_measured(farm, tmp_path):
    errors = interrupted_profile(MODEL, tmp_path, "w12a12", "--target", TARGET, *farm.options)
    assert errors.strip().splitlines()[-1] == "mpcompile: interrupted"
