"""The demo itself, as small as it goes, really compiled and measured: what it leaves, and that it is not done twice."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import mpcompile as mp
from tests.search.small_config import small_config

pytest.importorskip("torch")
pytest.importorskip("sklearn")

DEMO = Path(__file__).parents[2] / "examples" / "demo"
SMALL = small_config(
    data={"side": 16, "train": 96, "test": 48},
    network={"widths": [8, 16], "blocks": [1, 1]},
    objective={"targets": ["1 s"]},
    baselines={"float": True, "int8": True},
    measure={"rounds": 3},
)


@pytest.fixture
def run():
    spec = importlib.util.spec_from_file_location("demo_run", DEMO / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_whole_demo(run, tmp_path, capsys):
    config, out = tmp_path / "small.toml", tmp_path / "demo"
    config.write_text(SMALL)
    arguments = ["--config", str(config), "--out", str(out)]
    assert run.main(arguments) == 0
    report = json.loads((out / "report.json").read_text())
    assert [p["name"] for p in report["points"]] == ["float", "int8", "uniform-w1a2", "target-1s"]
    assert report["raced"] and not report["missing"]
    assert all(d["seconds"] > 0 for d in report["derived"].values())
    assert all(d["verify"]["equal"] for d in report["derived"].values() if d["verify"])
    assert "<html" in (out / "report.html").read_text()
    with mp.open_bundle(out / "model.mpc", threads=1) as bundle:
        assert bundle.run(np.zeros((2, 1, 16, 16), np.float32)).shape == (2, 10)
    said = capsys.readouterr().out
    assert "train target-1s" in said and "latency table" in said

    bundle = (out / "model.mpc").read_bytes()
    assert run.main(arguments) == 0
    said = capsys.readouterr().out
    assert "train" not in said.split("network")[0] and (out / "model.mpc").read_bytes() == bundle
    config.write_text(SMALL + "# changed\n")
    assert run.main(arguments) == 2 and "--again" in capsys.readouterr().err
    assert run.main(["--config", str(tmp_path / "no.toml"), "--out", str(out)]) == 2


def test_the_demo_s_own_configuration_is_sound():
    from mpcompile.search import config

    found = config.read(DEMO / "search.toml")
    assert found.data.path == "" and max(found.network.widths) >= 128 and found.search.method == "ilp"
    assert len(found.budgets()) >= 3 and found.baselines.float and found.baselines.int8


def test_the_chosen_network_is_the_fastest_that_is_good_enough(run):
    def point(name, accuracy, kind="searched"):
        return {"name": name, "kind": kind, "accuracy": accuracy}

    points = [point("float", 0.95, "float"), point("slow", 0.96), point("fast", 0.945), point("poor", 0.9)]
    report = {"points": points, "derived": {n: {"seconds": s} for n, s in (("slow", 3), ("fast", 2), ("poor", 1))}}
    assert run.chosen(report)["name"] == "fast"
    report["points"] = [points[0], points[3]]
    assert run.chosen(report)["name"] == "poor"
