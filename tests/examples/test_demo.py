"""The demo itself, on few images: interrupted training goes on exactly, and the whole run leaves what it says."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("brevitas")


class Interrupt(Exception):
    pass


@pytest.fixture
def few(demo_path):
    """A data set of 96 and 48 digits."""
    import data

    d = data.load(None)
    return data.Data("few", (d.train[0][:96], d.train[1][:96]), (d.test[0][:48], d.test[1][:48]), 10)


def test_interrupted_training_goes_on_exactly(few, tmp_path):
    import train

    recipe = train.Recipe(3, 1e-3)

    def interrupt(epoch, *_):
        if epoch == 3:
            raise Interrupt

    def fit(name, show):
        torch.manual_seed(1)
        train.fit(train.quantized_network(few), few, recipe, tmp_path / name, "key", show)
        return train.load(tmp_path / name)

    straight = fit("straight.npz", lambda *_: None)
    with pytest.raises(Interrupt):
        fit("resumed.npz", interrupt)
    assert [f.name for f in tmp_path.glob("resumed*")] == ["resumed.part.npz"]
    resumed = fit("resumed.npz", lambda *_: None)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["resumed.npz", "straight.npz"]
    assert straight.keys() == resumed.keys()
    for name in straight:
        assert np.array_equal(straight[name], resumed[name]), name


def test_the_whole_demo(few, tmp_path, monkeypatch, capsys):
    import run
    import train

    # Sources that change while the test runs would rightly make it compile again.
    monkeypatch.setattr(run, "COMPILED_BY", [run.HERE / "steps.py"])
    monkeypatch.setattr(train, "FLOAT", train.Recipe(2, 2e-3))
    monkeypatch.setattr(train, "QUANTIZED", train.Recipe(2, 1e-3))
    np.savez(
        tmp_path / "few.npz",
        **{
            f"{part}_{kind}": array[:, 0] if kind == "images" else array
            for part in ("train", "test")
            for kind, array in zip(("images", "labels"), getattr(few, part))
        },
    )
    out = tmp_path / "demo"
    arguments = ["--data", str(tmp_path / "few.npz"), "--out", str(out)]
    assert run.main(arguments) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["verify"]["equal"] and report["verify"]["buffers"] > 15
    assert (
        {"bundle", "ONNX Runtime int8", "ONNX Runtime fp32"}
        == report["timing"]["timings"].keys()
        < report["accuracy"].keys()
    )
    # Float rounding may flip a code here and there, and then a rare answer.
    assert abs(report["accuracy"]["bundle"] - report["accuracy"]["quantized, in torch"]) <= 0.02
    bits = {
        (len(p["weight_grid"]["plane_weights"]), len(p["activation_grid"]["plane_weights"]))
        for layer in report["layers"]
        for p in layer.get("parts", [])
    }
    assert {(1, 2), (2, 2), (3, 4), (8, 8)} <= bits
    bundle = (out / "model.mpc").read_bytes()
    capsys.readouterr()

    assert run.main(arguments) == 0
    said = capsys.readouterr().out
    assert said.count("done before") == 4 and "epoch" not in said
    assert (out / "model.mpc").read_bytes() == bundle
    assert run.main(["--out", str(out), "--data", str(tmp_path / "absent")]) == 2
