"""profile on this machine: real layers, compiled by the pipeline and timed; and what the command says of it."""

import json
import subprocess
import sys

import numpy as np
import pytest

import mpcompile as mp
from benchmarks.networks import Builder
from mpcompile.api.pool_workbench import PoolWorkbench
from mpcompile.errors import UsageError
from mpcompile.frontend import load
from mpcompile.ir.layer import Layer
from mpcompile.kernels.select import expected_family
from mpcompile.latency.requantize import requantize
from mpcompile.latency.subgraph import layer_subgraph
from mpcompile.latency.table import LatencyTable
from mpcompile.remote.pool import DevicePool
from mpcompile.targets import load_target
from tests.latency.interrupted import interrupted_profile


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two convolutions of one shape and a dense layer."""
    b = Builder(0)
    b.values["x"] = np.abs(np.random.default_rng(1).normal(size=(64, 8, 8))).astype(np.float32)
    x = b.relu(b.batch_norm(b.conv(b.activation("x", 1, "q0"), 64, 3, 1, 1, "c0"), "bn0"), "r0")
    x = b.relu(b.batch_norm(b.conv(b.activation(x, 1, "q1"), 64, 3, 1, 1, "c1"), "bn1"), "r1")
    x = b.node("GlobalAveragePool", [x], "mean", b.values[x].mean((1, 2), keepdims=True))
    x = b.activation(b.node("Flatten", [x], "flat", b.values[x].reshape(-1), axis=1), 4, "q2")
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    b.network("x", b.dense(x, 10, 8, "fc")).save(path)
    return path


def test_a_profile_has_every_layer_and_the_whole(model):
    found = mp.profile(model, threads=1, rounds=5)
    fused = PoolWorkbench(load_target("native"), DevicePool.local(), 1).fuse(load(model))
    assert list(found.layers) == [n.name for n in fused.nodes]
    assert all(t.seconds > 0 for t in found.layers.values())
    assert found.network.seconds > max(t.seconds for t in found.layers.values())
    again = json.loads(json.dumps(found.to_json()))
    assert [row["name"] for row in again["layers"]] == list(found.layers)
    assert again["measured_on"]["threads"] == "1" and again["measured_on"]["cpu"]


def test_a_table_of_real_layers(model, tmp_path, monkeypatch):
    cells = tmp_path / "cells"
    found = mp.profile(model, bits="w1a18", cache=cells, threads=1, rounds=5)
    assert set(found.contractions) == {"c0", "c1", "fc"}
    assert found.latency("c0", 1, 8) > found.latency("c0", 1, 1) > 0
    cell = found.layers[found.contractions["c0"].layer].reads["c0"][1, 1]
    assert set(cell) == {"planes", "codes"}  # popcount reads the one, all others the other
    assert found.format("c0", 1, 1) == min(cell, key=cell.get) and found.format("c0", 1, 8) == "codes"
    assert found.predict({"c0": (1, 8), "c1": (1, 8)}) > found.predict()
    found.save(tmp_path / "lut.json")
    assert LatencyTable.load(tmp_path / "lut.json") == found

    def never(self, batches, done):
        raise AssertionError("measured again")

    monkeypatch.setattr(PoolWorkbench, "time", never)
    again = mp.profile(model, bits="w1a18", cache=cells, threads=1, rounds=5)
    assert again.layers == found.layers


def lowered(bench, graph, layer, family, weights, activations):
    fused = bench.fuse(requantize(graph, weights, activations))
    name = next(n.name for n in fused.nodes if isinstance(n, Layer) and layer in n.source)
    return bench.lower(layer_subgraph(fused, name, bench.choose(fused) | {name: {(0, 0): family}}, bench.families))


@pytest.mark.parametrize("family, same", [("dot", True), ("popcount", False)])
def test_bits_that_a_kernel_does_not_see_make_no_other(model, family, same):
    """Codes are bytes at any bits; every plane is work."""
    bench, graph = PoolWorkbench(load_target("native"), DevicePool.local(), 1), load(model)
    few, more, weights = (
        lowered(bench, graph, "c1", family, w, a).identity
        for w, a in (({"c1": 2}, {"q1": 2}), ({"c1": 2}, {"q1": 3}), ({"c1": 3}, {"q1": 2}))
    )
    assert (few == more) is (few == weights) is same


def test_a_network_is_compiled_with_what_its_table_found_fastest(model, tmp_path):
    found = mp.profile(model, bits="w1a1", cache=tmp_path / "cells", threads=1, rounds=1)
    for form, families in (("codes", {"dot", "lookup", "winograd"}), ("planes", {"popcount"})):
        cell = found.layers[found.contractions["c1"].layer].reads["c1"][1, 1]
        cell |= {"codes": 1.0, "planes": 1.0, form: 0.5}
        path = PoolWorkbench(load_target("native"), DevicePool.local(), 1).compile(model, tmp_path / "m.mpc", found)
        with mp.open_bundle(path) as bundle:
            rows = [row for row in bundle.layers if "c1" in row.get("source", ())]
        (part,) = (part for row in rows for part in row["parts"])
        assert part["family"] in families


def test_a_layer_taken_out_stores_what_the_network_stores(model, tmp_path):
    bench = PoolWorkbench(load_target("native"), DevicePool.local(), 1)
    fused = bench.fuse(load(model))
    families = bench.choose(fused)
    mp.compile(model, output=tmp_path / "m.mpc")
    with mp.open_bundle(tmp_path / "m.mpc") as bundle:
        whole = {p.buffer.key: p.buffer for p in bundle.plan.buffers}
    for layer in (n for n in fused.nodes if isinstance(n, Layer)):
        subgraph = layer_subgraph(fused, layer.name, families, bench.families)
        only = {name: {part: (family,) for part, family in of.items()} for name, of in subgraph.families.items()}
        mp.compile(subgraph.graph, output=tmp_path / "subgraph.mpc", allowed=only)
        with mp.open_bundle(tmp_path / "subgraph.mpc") as bundle:
            stored = {p.buffer.key: p.buffer for p in bundle.plan.buffers}
        for t in (*layer.inputs, *layer.outputs):
            formats = {k: b for k, b in whole.items() if b.tensor == t and b.format in ("planes", "codes")}
            assert formats == {k: b for k, b in stored.items() if b.tensor == t and b.format in ("planes", "codes")}


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mpcompile", "profile", *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command(model, tmp_path):
    out = tmp_path / "profile.json"
    done = run(model, "--threads", 1, "--rounds", 3, "-o", out)
    assert done.returncode == 0, done.stderr
    assert "c0" in done.stdout and expected_family(load_target("native"), 1, 1) in done.stdout
    assert len(json.loads(out.read_text())["layers"]) >= 5


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--bits", "w12"], "--bits"),
        (["--rounds", "0"], "--rounds"),
        (["--bits", "w1a1"], "-o"),
        (["-o", "nowhere/out.json"], "nowhere"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(model, tmp_path, arguments, says):
    if arguments[:2] == ["--bits", "w12"]:
        arguments = [*arguments, "-o", str(tmp_path / "lut.json")]
    done = run(model, *arguments)
    assert done.returncode == UsageError.exit_code and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_interrupted_command_leaves_cells_but_no_table(model, tmp_path):
    assert interrupted_profile(model, tmp_path, "w1234a1248", "--rounds", "3").strip() == "mpcompile: interrupted"
