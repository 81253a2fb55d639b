"""A whole sweep on a device that is a formula: the front, calibration, kills, and the command line's errors."""

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from mpcompile.cli import main
from mpcompile.errors import UsageError
from mpcompile.latency.table import LatencyTable
from mpcompile.search.config import ObjectiveOptions
from mpcompile.search.folder import Folder
from mpcompile.search.front import Point, pareto
from mpcompile.search.run import run
from tests.search.simulated_sweep import CONFIG, SimulatedDevice, sweep

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sweep_done(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep_done")
    events = []
    return out, sweep(out, lambda *event: events.append(event[:3])).run(), events


def test_every_point_is_there_and_measured(sweep_done):
    out, result, _ = sweep_done
    names = ["float", "int8", "uniform-w1a1", "uniform-w8a8", "target-60pc", "target-30pc"]
    assert [p.name for p in result.points] == names
    for p in result.points:
        folder = out / "points" / p.name
        assert {"model.onnx", "metrics.json"} <= {f.name for f in folder.iterdir()}
        assert (folder / "weights.npz").exists() == (p.kind != "int8")
        assert not list(folder.glob("*.part.npz"))
        assert (p.measured is None) == (p.kind in ("float", "int8")) == (not (folder / "model.mpc").exists())
    assert json.loads((out / "front.json").read_text()) == result.to_json()
    assert LatencyTable.load(out / "LUT.json").predict() > 0
    assert all(json.loads(line) for line in (out / "log.jsonl").read_text().splitlines())


def test_searched_points_keep_their_budgets(sweep_done):
    _, result, _ = sweep_done
    searched = [p for p in result.points if p.kind == "searched"]
    assert all(p.predicted <= p.target for p in searched) and searched[0].target > searched[1].target
    assert len({str(p.assignment) for p in searched}) == 2


def test_the_table_is_calibrated_from_whole_networks(sweep_done):
    """The device takes 7 % more than the sum of its layers; after the first networks the prediction knows."""
    _, result, _ = sweep_done
    last = result.points[-1]
    assert abs(last.raw / last.measured - 1) > 0.06 > 0.03 > abs(last.predicted / last.measured - 1)
    assert result.calibration(last.raw) == pytest.approx(last.measured, rel=0.02)


def test_all_points_are_raced_and_checked(sweep_done):
    """The race's times are what points are compared by; every bundle is verified, answers, and is timed by layer."""
    out, result, _ = sweep_done
    race = json.loads((out / "race.json").read_text())["result"]["timings"]
    assert {p.name: p.raced for p in result.points} == {name: t["seconds"] for name, t in race.items()}
    assert [p.raced for p in result.front] == sorted(p.raced for p in result.front)
    for p in result.points:
        assert p.deployed == 0.25  # the device says class 0 to everything
        if p.kind not in ("float", "int8"):
            assert p.raced == pytest.approx(1.05 * p.measured)
            checked = json.loads((out / "points" / p.name / "checked.json").read_text())["result"]
            assert checked["verify"] == {"equal": True, "samples": 1, "summary": "all buffers equal the reference"}
            assert {row["name"] for row in checked["profile"]["layers"]} == set(p.layers)
    sizes = {p.name: p.weight_bytes for p in result.points}
    assert sizes["float"] == 4 * sizes["int8"] == 4 * sizes["uniform-w8a8"] > 16 * sizes["uniform-w1a1"] > 0


def test_what_a_run_records(sweep_done):
    out, result, _ = sweep_done
    found = json.loads((out / "run.json").read_text())
    assert sorted(found["points"]) == sorted(p.name for p in result.points)
    assert found["data"]["train"] == 64 and found["data"]["test"] == 32 and len(found["data"]["sha256"]) == 64
    assert found["config"]["seed"] == 2 and found["config"]["search"]["weights"] == [1, 2, 8]
    assert found["machine"]["cpu"] == "a formula" and found["versions"]
    layers = {layer["name"]: layer for layer in found["network"]["layers"]}
    searched = result.points[-1]
    assert set(layers) == set(searched.assignment.weights)
    assert {layer["fused"] for layer in layers.values()} <= set(searched.layers)
    assert {layer["reads"] for layer in layers.values()} <= set(searched.assignment.tensors)
    phases = json.loads((out / "phases.json").read_text())
    target = {f"{what} target-60pc" for what in ("search", "train", "measure", "check")}
    assert {"latency table", "train float", "quantize int8", "race", *target} <= set(phases["seconds"])
    assert all(s >= 0 for s in phases["seconds"].values()) and phases["began"] <= phases["last"]


def test_a_second_run_does_nothing_again(sweep_done):
    out, result, _ = sweep_done
    before = (out / "device.log").read_text()
    events = []
    assert sweep(out, lambda *event: events.append(event)).run() == result
    assert {what.split()[0] for what, *_ in events} <= {"measure"} and (out / "device.log").read_text() == before


def test_another_budget_measures_no_table_again(sweep_done, tmp_path):
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(sweep_done[0], out)
    (out / "device.log").write_text("")
    more = replace(CONFIG, objective=ObjectiveOptions(targets=["60 %", "30 %", "15 %"]))
    found = sweep(out, config=more).run()
    assert [p.name for p in found.points][-1] == "target-15pc" and found.points[:-1] == sweep_done[1].points
    done = (out / "device.log").read_text().splitlines()
    single, race = done[:-1], done[-1]
    assert single == [f"{what} target-15pc" for what in ("compile", "network_seconds", "answers", "verify", "profile")]
    assert race.split() == ["race", *(p.name for p in found.points)]


def test_killed_again_and_again_it_ends_the_same(sweep_done, tmp_path):
    """SIGKILL within a training, a search and a later search; in the end every number and weight is that of an unbroken
    run, and nothing was measured twice."""
    _, result, events = sweep_done
    out = tmp_path / "run"
    names = [e[0] for e in events]
    kills = [names.index("train uniform-w1a1") + 3, names.count("search target-60pc") // 2 + 12, 25]
    for after in kills:
        found = subprocess.run([sys.executable, "-m", "tests.search.simulated_sweep", out, str(after)], cwd=ROOT)
        assert found.returncode == -signal.SIGKILL
    assert sweep(out).run() == dataclasses.replace(result, folder=out)
    measured = (out / "device.log").read_text().split("\n")
    assert len(measured) == len(set(measured))
    for p in (p for p in result.points if p.kind != "int8"):
        one, other = (np.load(f / "points" / p.name / "weights.npz") for f in (sweep_done[0], out))
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_a_budget_that_cannot_be_met_is_said_before_anything_is_trained(tmp_path):
    trained = []
    config = replace(CONFIG, objective=ObjectiveOptions(targets=["1 us", "1 ms"]))
    with pytest.raises(UsageError, match="target-1us: no choice of bits"):
        sweep(tmp_path, lambda what, *_: trained.append(what), config).run()
    assert set(trained) == {"latency table"}


def test_bitops_as_the_objective(tmp_path):
    config = replace(
        CONFIG,
        objective=ObjectiveOptions("bitops", ["40 %"]),
        baselines=replace(CONFIG.baselines, uniform=[], float=False, int8=False),
    )
    point = sweep(tmp_path, config=config).run().points[0]
    assert point.unit == "BitOps" and point.bitops <= point.target and point.measured > 0


def test_pareto():
    points = [
        Point(n, "searched", a, t) for n, a, t in (("a", 0.5, 1.0), ("b", 0.6, 1.0), ("c", 0.55, 2.0), ("d", 0.9, 3.0))
    ]
    assert [p.name for p in pareto([*points, Point("float", "float", 0.99, None)])] == ["b", "d"]


def test_a_folder_of_another_configuration_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("seed = 1")
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_text("seed = 2")
    with pytest.raises(UsageError, match="another configuration"):
        run(tmp_path / "a.toml", CONFIG, out, SimulatedDevice())
    (out / "config.toml").rename(out / "notes.txt")
    with pytest.raises(UsageError, match="not empty"):
        run(tmp_path / "a.toml", CONFIG, out, SimulatedDevice())


def test_a_configuration_whose_data_cannot_be_read_takes_no_folder(tmp_path):
    for n, wrong in enumerate(("nowhere", "neither")):
        file = tmp_path / f"{n}.toml"
        file.write_text(f'data.path = "{wrong}"')
        with pytest.raises(UsageError, match=f"there is no data set {wrong}"):
            run(
                file,
                replace(CONFIG, data=replace(CONFIG.data, path=wrong)),
                tmp_path / "runs" / "one",
                SimulatedDevice(),
            )
    assert not (tmp_path / "runs").exists()


def test_a_folder_of_another_kind_of_device_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("")
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_text("")
    Folder(out).write("run.json", {"device": {"cpu": "another formula"}})
    with pytest.raises(UsageError, match="measured with cpu another formula, not a formula: choose another folder"):
        run(tmp_path / "a.toml", CONFIG, out, SimulatedDevice())


def test_one_process_at_a_time_and_no_litter(tmp_path):
    (tmp_path / "a.toml").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text("")
    (tmp_path / "run" / ".search.npz.k3j.npz").write_text("half")
    with Folder(tmp_path / "run").locked():
        assert not list((tmp_path / "run").glob(".*.npz"))
        with pytest.raises(UsageError, match="this process writes to"):
            run(tmp_path / "a.toml", CONFIG, tmp_path / "run", SimulatedDevice())


def test_a_folder_in_use_is_said_before_devices_are_asked_for(tmp_path, capsys):
    """There is no such tracker; nobody gets so far."""
    (tmp_path / "c.toml").write_text('objective = {targets = ["60 %"]}')
    (tmp_path / "run").mkdir()
    options = ["--no-report", "--tracker", "localhost:1", "--key", "box"]
    with Folder(tmp_path / "run").locked():
        assert main(["search", str(tmp_path / "c.toml"), "-o", str(tmp_path / "run"), *options]) == 2
    assert f"writes to {tmp_path / 'run'}: wait for it, or name another folder\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, code, named",
    [
        (None, 2, "nowhere.toml"),
        ("sede = 1", 3, "sede"),
        ('objective = {targets = ["60 %"]}\n[data]\npath = "gone"', 2, "gone"),
        ('objective = {targets = ["60 %"]}\n[measure]\ntarget = "pdp11"', 4, "pdp11"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys, text, code, named):
    path = tmp_path / ("nowhere.toml" if text is None else "c.toml")
    if text is not None:
        path.write_text(text)
    assert main(["search", str(path), "-o", str(tmp_path / "run")]) == code
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1
