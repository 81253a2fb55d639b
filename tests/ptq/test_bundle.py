"""From a float file to a verified bundle, bits chosen by a latency."""

import pytest

import mpcompile as mp
from tests.ptq.nets import export, made, samples


@pytest.mark.parametrize("name", ["mobile", "branches", "sound"])
def test_the_bundle_equals_the_reference(tmp_path, name):
    source = export(made(name), tmp_path / "float.onnx")
    found = mp.quantize(source, samples(name), tmp_path / "q.onnx", latency="w3a3", target="rpi4b", keep={"*": "w4a4"})
    assert found.costs[0].modelled and {str(layer.bits) for layer in found.layers} == {"w4a4"}
    bundle = mp.compile(found.path, target="native", output=tmp_path / "m.mpc", require_quantized=True)
    checked = mp.verify(found.path, bundle, samples(name, 3, 7), witness="qonnx")
    assert checked.equal, checked.summary
