"""RNN, GRU and LSTM against ONNX Runtime: directions, activations, first states, peepholes, samples in front or behind."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpcompile.api.compile import compile_model
from mpcompile.api.verify import verify
from mpcompile.errors import ModelError
from mpcompile.runtime.bundle import open_bundle
from tests.kernels.harness import LEVELS

STEPS, INPUTS, HIDDEN = 5, 7, 21
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> np.ndarray:
    return RANDOM.normal(0, 0.4, shape).astype(np.float32)


CELLS = {
    # cell, attributes, whether with a first state, peepholes
    "rnn": ("RNN", {}, False, False),
    "rnn_relu_reverse": ("RNN", dict(direction="reverse", activations=["Relu"]), True, False),
    "gru": ("GRU", {}, False, False),
    "gru_reset_last": ("GRU", dict(linear_before_reset=1), True, False),
    "gru_both": ("GRU", dict(direction="bidirectional", linear_before_reset=1), True, False),
    "lstm": ("LSTM", {}, True, False),
    "lstm_both": ("LSTM", dict(direction="bidirectional"), False, False),
    "lstm_peepholes": ("LSTM", dict(activations=["Sigmoid", "Tanh", "Relu"]), True, True),
}


def model(names, batch: int = 1, **extra) -> onnx.ModelProto:
    """One input, in which the samples of a step lie beside each other; the cells side by side, all of their outputs."""
    nodes = [helper.make_node("Reshape", ["x", "steps"], ["s"])]
    held, outputs = {"steps": np.array([STEPS, batch, INPUTS], np.int64), "flat": np.array([1, -1], np.int64)}, []
    for name in names:
        cell, attributes, first, peepholes = CELLS[name]
        d = 2 if attributes.get("direction") == "bidirectional" else 1
        gates = GATES[cell] * HIDDEN
        own = {f"{name}.w": weights(d, gates, INPUTS), f"{name}.r": weights(d, gates, HIDDEN)}
        own[f"{name}.b"] = weights(d, 2 * gates)
        states = {f"{name}.h": weights(d, batch, HIDDEN)} if first else {}
        if cell == "LSTM" and first:
            states[f"{name}.c"] = weights(d, batch, HIDDEN)
        if peepholes:
            states[f"{name}.p"] = weights(d, 3 * HIDDEN)
        made = [f"{name}.{o}" for o in ("y", "last", "cell")[: 3 if cell == "LSTM" else 2]]
        reads = ["s", *own, *(["", *states] if states else [])]
        nodes.append(helper.make_node(cell, reads, made, hidden_size=HIDDEN, **attributes, **extra))
        held |= own | states
        nodes += [helper.make_node("Reshape", [o, "flat"], [f"{o}.flat"]) for o in made]
        outputs += [f"{o}.flat" for o in made]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, STEPS, batch * INPUTS))]
    results = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    kept = [numpy_helper.from_array(a, n) for n, a in held.items()]
    graph = helper.make_graph(nodes, "cells", ports, results, kept)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made, strict_mode=True)


@pytest.mark.parametrize(
    "target, batch, names",
    [("native", 1, list(CELLS)), ("native", 3, ["gru_both", "lstm_peepholes"])]
    + [(level, 1, ["gru", "lstm_both"]) for level in LEVELS[:2]],
)
def test_states_are_those_of_onnx_runtime(tmp_path, target, batch, names):
    made = model(names, batch)
    onnx.save(made, tmp_path / "m.onnx")
    x = RANDOM.normal(size=(1, STEPS, batch * INPUTS)).astype(np.float32)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": x})))
    path = compile_model(tmp_path / "m.onnx", target, tmp_path / "m.mpc")
    with open_bundle(path, 1) as bundle:
        got = bundle.run({"x": x})
    assert isinstance(got, dict)
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name].reshape(value.shape), value, rtol=2e-5, atol=2e-6, err_msg=name)


def test_it_is_verified_and_takes_lengths_that_are_all_steps(tmp_path):
    made = model(["gru"])
    made.graph.initializer.append(numpy_helper.from_array(np.array([STEPS], np.int32), "lengths"))
    made.graph.node[1].input.append("lengths")
    onnx.save(made, tmp_path / "m.onnx")
    report = verify(tmp_path / "m.onnx", compile_model(tmp_path / "m.onnx", output=tmp_path / "m.mpc"))
    assert report.equal, report.summary


@pytest.mark.parametrize(
    "attributes, said",
    [(dict(activations=["Softsign"]), "RNN with Softsign; Sigmoid, Tanh, Relu would be accepted"),
     (dict(clip=1.0), "RNN with clip; one without would be accepted")],
)  # fmt: skip
def test_what_the_kernels_do_not_do_is_refused(tmp_path, capsys, attributes, said):
    onnx.save(model(["rnn"], **attributes), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"node RNN_1 \(RNN\) cannot be compiled") as error:
        compile_model(tmp_path / "m.onnx", output=tmp_path / "m.mpc")
    assert said in str(error.value)
    assert capsys.readouterr().out == ""  # TVM's importer prints beside what it raises
