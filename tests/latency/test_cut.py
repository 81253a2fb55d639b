"""A layer cut out of its network computes what it computes in it, from the same codes; on every test model."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.frontend import load
from mpcompile.ir.layer import Layer
from mpcompile.latency.cache import Cache
from mpcompile.latency.key import key_of
from mpcompile.latency.profile import build_table
from mpcompile.latency.subgraph import cut
from mpcompile.reference.run import run
from tests.latency.simulated import Simulated

MODELS = sorted((Path(__file__).parents[1] / "data").glob("*.onnx"))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_cut_layers_are_the_network_s(path):
    bench = Simulated()
    fused = bench.fuse(load(path))
    rng = np.random.default_rng(0)
    tensors = run(fused, {t: rng.standard_normal(fused.types[t].shape, np.float32) for t in fused.inputs})
    families = bench.choose(fused)
    keys = {}
    for layer in (n for n in fused.nodes if isinstance(n, Layer)):
        alone = cut(fused, layer.name, families, bench.families)
        feeds = {}
        for t in layer.inputs:
            quantizer = fused.types[t].quantizer
            source = t if t in alone.graph.inputs else f"{t}.source"
            feeds[source] = (tensors[t] * quantizer.scale if quantizer else tensors[t]).astype(np.float32)
        found = run(alone.graph, feeds)
        for t in layer.outputs:
            np.testing.assert_array_equal(found[t], tensors[t])
            assert alone.reads[t]
        assert key_of(alone, {}) == key_of(cut(fused, layer.name, families, bench.families), {})
        assert key_of(alone, {}) != key_of(alone, {"cpu": "another"})
        keys[layer.name] = key_of(alone, {})
    assert len(set(keys.values())) > len(keys) // 3


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_every_test_model_has_a_latency_table(path, tmp_path):
    graph = load(path)
    table = build_table(graph, [1, 4], [2, 8], Simulated(), Cache(tmp_path / "cells"))
    assert table.predict() == pytest.approx(Simulated().network(graph), rel=1e-9)
    for name, c in table.contractions.items():
        assert table.latency(name, c.w, c.a) > 0
        assert table.predict({name: (4, c.a)}) > 0
