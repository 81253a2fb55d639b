"""A layer taken out of its network computes what it computes in it, from the same codes; on every test model."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.frontend import load
from mpcompile.ir.bits import BitCandidates
from mpcompile.ir.layer import Layer
from mpcompile.latency.cache import Cache
from mpcompile.latency.key import key_of
from mpcompile.latency.profile import build_table
from mpcompile.latency.subgraph import layer_subgraph
from mpcompile.reference.run import run
from tests.latency.simulated import Simulated

MODELS = sorted((Path(__file__).parents[1] / "data").glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_a_layer_taken_out_computes_what_the_network_s_does(path):
    bench = Simulated()
    fused = bench.fuse(load(path))
    rng = np.random.default_rng(0)
    tensors = run(fused, {t: rng.standard_normal(fused.types[t].shape, np.float32) for t in fused.inputs})
    families = bench.choose(fused)
    keys = {}
    for layer in (n for n in fused.nodes if isinstance(n, Layer)):
        subgraph = layer_subgraph(fused, layer.name, families, bench.families)
        feeds = {}
        for t in layer.inputs:
            quantizer = fused.types[t].quantizer
            source = t if t in subgraph.graph.inputs else f"{t}.source"
            feeds[source] = (tensors[t] * quantizer.scale if quantizer else tensors[t]).astype(np.float32)
        found = run(subgraph.graph, feeds)
        for t in layer.outputs:
            np.testing.assert_array_equal(found[t], tensors[t])
            assert subgraph.reads[t]
        assert key_of(subgraph, {}) == key_of(layer_subgraph(fused, layer.name, families, bench.families), {})
        assert key_of(subgraph, {}) != key_of(subgraph, {"cpu": "another"})
        keys[layer.name] = key_of(subgraph, {})
    assert len(set(keys.values())) > len(keys) // 3


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_every_test_model_has_a_latency_table(path, tmp_path):
    graph = load(path)
    table = build_table(graph, BitCandidates.of([1, 4], [2, 8]), Simulated(), Cache(tmp_path / "cells"))
    assert table.predict() == pytest.approx(Simulated().network(graph), rel=1e-9)
    for name, c in table.contractions.items():
        assert table.latency(name, c.w, c.a) > 0
        assert table.predict({name: (4, c.a)}) > 0
