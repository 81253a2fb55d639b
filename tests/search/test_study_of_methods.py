"""python -m benchmarks.search_methods: what its tables say of networks, and that it goes on where it was."""

import json
from xml.etree import ElementTree

import pytest

from benchmarks.search_methods import SIZES, Study
from mpcompile.ir.bits import BitPair

METHODS = ["uniform", "random", "ilp"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    study = Study(out, SIZES["quick"])
    study.run(1, ["rpi4b"], METHODS)
    return out, study


def test_every_method_is_compared_with_the_uniform_network_of_its_cost(done):
    out, study = done
    rows = json.loads((out / "methods.json").read_text())["rows"]
    assert [(r["method"], r["budget"]) for r in rows] == [(m, b) for m in METHODS for b in ("w2a2", "between", "w1a2")]
    assert all(r["cost"] <= r["target"] * (1 + 1e-9) for r in rows)
    accuracy = {}
    for bits in ("w1a2", "w2a2"):
        accuracy[bits] = study.quantized(0, study.network(0).uniform(*BitPair.parse(bits)))["accuracy"]
    accuracy["between"] = (accuracy["w1a2"] + accuracy["w2a2"]) / 2
    for r in rows:
        assert r["gain"] == pytest.approx(r["accuracy"] - accuracy[r["budget"]])
        if r["method"] == "uniform" and r["budget"] != "between":
            assert r["gain"] == 0 and r["cost"] == pytest.approx(r["target"])
    text = (out / "methods.md").read_text()
    plot = ElementTree.parse(out / "methods-rpi4b.svg").getroot()
    said = [title.text for title in plot.iter("{http://www.w3.org/2000/svg}title")]
    assert sum(line.startswith("ilp: ") for line in said) == 3 and "uniform W8A8" in said
    assert "| ilp |" in text and "| least held-out loss |" in text and "W8A8" in text


def test_what_is_there_is_not_done_again(done):
    out, study = done
    lines, text = study.lines.read_text(), (out / "methods.md").read_text()
    Study(out, SIZES["quick"]).run(1, ["rpi4b"], METHODS)
    assert study.lines.read_text() == lines and (out / "methods.md").read_text() == text
