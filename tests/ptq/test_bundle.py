"""From a float file to a verified bundle, bits chosen under a budget; latencies as they are measured here."""

import json

import pytest

import mpcompile as mp
from mpcompile.ir.bits import BitPair
from mpcompile.latency.table import LatencyTable
from tests.ptq.nets import export, made, samples


@pytest.mark.parametrize("name", ["mobile", "branches", "sound"])
def test_the_bundle_equals_the_reference(tmp_path, name):
    source = export(made(name), tmp_path / "float.onnx")
    found = mp.quantize(source, samples(name), tmp_path / "q.onnx", bitops="w4a4", candidates="w248a248")
    assert len({layer.bits for layer in found.layers}) > 1
    bundle = mp.compile(found.path, target="native", output=tmp_path / "m.mpc", require_quantized=True)
    checked = mp.verify(found.path, bundle, samples(name, 3, 7), witness="qonnx")
    assert checked.equal, checked.summary


def test_a_measured_latency(tmp_path):
    """The budget is kept by the table that is measured here; with the cells that were kept, or with the table, nothing is
    measured again, and another budget is kept."""
    source, x = export(made("perceptron"), tmp_path / "float.onnx"), samples("perceptron")
    how = dict(candidates="w28a28", keep={"*": "w8a8", "*layers.2*": "w2a8"}, rounds=3, threads=1)
    found = mp.quantize(source, x, tmp_path / "q.onnx", latency="1 s", **how)
    (cost,) = found.costs
    assert not cost.modelled and 0 < cost.cost < cost.limit == 1.0
    cells = (tmp_path / "q.onnx.cells").read_text().splitlines()
    assert cells and all(json.loads(line)["seconds"] > 0 for line in cells)
    again = mp.quantize(source, x, tmp_path / "q.onnx", latency="w8a8", **how)
    assert (tmp_path / "q.onnx.cells").read_text().splitlines() == cells
    table = mp.profile(found.path, bits="w28a28", threads=1, rounds=3, cache=tmp_path / "q.onnx.cells")
    assert isinstance(table, LatencyTable)
    by_table = mp.quantize(source, x, tmp_path / "r.onnx", latency="w8a8", table=table, **how)
    assert [layer.bits for layer in again.layers] == [layer.bits for layer in by_table.layers]
    assert by_table.costs[0].cost == pytest.approx(table.predict({k.name: BitPair(*k.bits) for k in by_table.layers}))
