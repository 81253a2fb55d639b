"""From an untouched module to a bundle that was verified, in one call, on this machine: small, one epoch."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import mpcompile as mp
from mpcompile.cli import main
from mpcompile.search.digits import digits
from tests.search import modules

OPTIONS = {
    "search": {"weights": [2, 8], "activations": [2, 8], "batch": 16, "warmup": 0},
    "measure": {"threads": 1, "rounds": 1},
}


def images(count: int, part: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits in clutter, at 16×16: float32 [N, 1, 16, 16] of about deviation 1, and labels."""
    pixels, labels = digits(count, count)[part]
    halved = nn.functional.avg_pool2d(torch.from_numpy(pixels).float()[:, None] / 255, 2)
    return (halved - 0.25) / 0.25, torch.from_numpy(labels)


def data_for(name: str, count: int, part: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For one of MODULES; for sounds and vectors the images' pixels in a row."""
    x, y = images(count, part)
    return {"audio": x.flatten(2), "mlp": x.flatten(1)}.get(name, x), y


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    kind, _ = modules.MODULES[name]
    return kind(256 if name == "mlp" else 1, 10)


@pytest.mark.parametrize("name", modules.MODULES)
def test_a_module_becomes_a_verified_bundle(name, tmp_path):
    train, val = data_for(name, 192, 0), data_for(name, 96, 1)
    found = mp.search(
        made(name), train, val, budget="100 ms", epochs=1, pretrain=1, out=tmp_path / "run", options=OPTIONS
    )
    assert list(found.networks) == ["target-100ms"] and found.front == [found.best]
    checked = json.loads((tmp_path / "run/points/target-100ms/checked.json").read_text())["result"]
    assert checked["verify"]["equal"], checked["verify"]["summary"]
    assert set(found.best.bits.values()) <= {(w, a) for w in (2, 8) for a in (2, 8)}
    floats = {"preactivation": ["shared"], "deit": ["matmul in block"]}
    assert list(found.floats) == floats.get(name, [])
    x, y = val
    with torch.no_grad():
        wanted = found.best.model(x).numpy()
    with mp.open_bundle(found.best.bundle, threads=1) as bundle:
        answers = bundle.run(x.numpy())
    assert found.best.accuracy == pytest.approx((wanted.argmax(1) == y.numpy()).mean())
    assert (answers.argmax(1) == wanted.argmax(1)).mean() > 0.95
    assert np.median(np.abs(answers - wanted)) < 0.01 * np.abs(wanted).max()


NETS = """
from tests.search.test_any_module import data_for, made

def task():
    return {"model": made("mlp"), "train": data_for("mlp", 96, 0), "val": data_for("mlp", 48, 1), "keep": {"[05]": 8}}
"""
TOML = """
module = "nets_of_any_module:task"
[search]
weights = [2, 8]
activations = [2, 8]
epochs = 1
warmup = 0
batch = 16
[objective]
targets = ["100 ms"]
[pretrain]
epochs = 0
[retrain]
epochs = 1
[baselines]
uniform = ["w2a2"]
[measure]
threads = 1
rounds = 1
"""


def test_a_configuration_searches_a_module(tmp_path, capsys):
    (tmp_path / "nets_of_any_module.py").write_text(NETS)
    (tmp_path / "search.toml").write_text(TOML)
    assert main(["search", str(tmp_path / "search.toml"), "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "target-100ms" in said and (tmp_path / "run/report.html").stat().st_size > 10_000
    about = json.loads((tmp_path / "run/run.json").read_text())
    assert about["network"]["name"] == "MLP" and about["data"]["image"] == [256] and about["data"]["train"] == 96
    front = json.loads((tmp_path / "run/front.json").read_text())
    bits = {p["name"]: p["assignment"]["weights"] for p in front["points"]}
    assert bits["uniform-w2a2"] == {"0": 8, "3": 2, "5": 8} and bits["target-100ms"]["5"] == 8
