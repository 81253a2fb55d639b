"""A model whose data lie in other files, as it is sent to a device: all of it, or one line."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from mpcompile.errors import MissingDependency, ModelError
from mpcompile.latency import onnxruntime

WEIGHTS = np.arange(8, dtype=np.float32)


@pytest.fixture
def model() -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (8,)) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [numpy_helper.from_array(WEIGHTS, "w")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


@pytest.fixture
def apart(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    return tmp_path / "m.onnx"


def test_the_data_are_in_it(apart, monkeypatch):
    assert WEIGHTS.tobytes() not in apart.read_bytes()
    monkeypatch.chdir("/")
    session = onnxruntime.session(onnxruntime.self_contained(apart), 1)
    assert np.array_equal(onnxruntime.run(session, {"x": WEIGHTS})["y"], 2 * WEIGHTS)


def test_a_file_that_has_them_is_sent_as_it_is(model, tmp_path, monkeypatch):
    onnx.save(model, tmp_path / "m.onnx")
    monkeypatch.setattr(onnxruntime, "find_spec", lambda name: None)  # and without onnx
    assert onnxruntime.self_contained(tmp_path / "m.onnx") == (tmp_path / "m.onnx").read_bytes()


def test_data_that_cannot_be_sent(apart, monkeypatch):
    whole = (apart.parent / "w.data").read_bytes()
    (apart.parent / "w.data").write_bytes(whole[:-1])
    with pytest.raises(ModelError, match="the data of .*m.onnx in other files cannot be read"):
        onnxruntime.self_contained(apart)
    (apart.parent / "w.data").unlink()
    with pytest.raises(ModelError, match="the data of .*m.onnx in other files cannot be read .*w.data"):
        onnxruntime.self_contained(apart)
    monkeypatch.setattr(onnxruntime, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="m.onnx has its data in other files; .* pip install onnx==1.22.0"):
        onnxruntime.self_contained(apart)
