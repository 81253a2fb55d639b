"""The reference run of a fused graph, against torch and numpy written out by hand; and what it refuses."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir.graph import Clip, FloatOp, Graph
from mpcompile.reference.float_op import run_float_op
from mpcompile.reference.fma import fma
from mpcompile.reference.run import run
from tests.unit.fused_graph import F, fused_graph, small_input


def conv(x, w, **how):
    return torch.nn.functional.conv2d(
        torch.tensor(x, dtype=torch.float64)[None], torch.tensor(w, dtype=torch.float64), **how
    )[0].numpy()


def test_every_tensor():
    graph, x = fused_graph(), small_input()
    t = run(graph, {"x": x})
    assert set(t) == set(graph.types)
    for name, kind in graph.types.items():
        assert t[name].shape == kind.shape and t[name].dtype == (np.int64 if kind.quantizer else np.float32), name
        if kind.quantizer:
            kind.grid.level(t[name])
            assert len(np.unique(t[name])) > 1, f"{name} is constant: it tests nothing"

    layers = {n.name: n for n in graph.nodes}
    np.testing.assert_array_equal(t["xq"], np.clip(np.rint(x * F(20)), -128, 127))
    part = layers["conv"].terms[0].parts[0]
    acc = conv(t["xq"], part.q, stride=2, padding=1).astype(F)
    a, b = (layers["conv"].epilogue[1].a.reshape(9, 1, 1), layers["conv"].epilogue[1].b.reshape(9, 1, 1))
    batch_norm = fma(acc, a, b)
    np.testing.assert_array_equal(t["b"], np.where(batch_norm >= 0, 1, -1))
    np.testing.assert_array_equal(t["skip"], np.maximum(batch_norm, 0))
    np.testing.assert_array_equal(t["a"], np.clip(np.rint(np.maximum(batch_norm, 0) * F(1 / 0.3)), 0, 3))
    np.testing.assert_allclose(t["gate"], 1 / (1 + np.exp(-t["skip"])), rtol=1e-6)
    above = np.concatenate([t["a"][:, :1], t["a"][:, :-1]], 1)
    mixed = fma(fma(np.maximum(t["a"], above).astype(F), F(0.5), t["gate"]), F(-2), F(5.5))
    np.testing.assert_array_equal(t["c"], np.clip(np.trunc(mixed.astype(np.float64) + np.copysign(0.5, mixed)), 0, 3))
    wb, wc = (p.q for p in layers["dense"].terms[0].parts)
    acc = conv(t["b"], wb) + conv(t["c"], wc)
    np.testing.assert_array_equal(t["y"], fma(acc.astype(F), F(0.02), layers["dense"].epilogue[1].b.reshape(5, 1, 1)))
    assert (t["logits"] == t["y"][:, 0, 0]).all()
    both = np.concatenate([np.abs(t["logits"]), t["logits"]])
    np.testing.assert_array_equal(t["both"], both)
    np.testing.assert_allclose(t["p"], np.exp(both) / np.exp(both).sum(), rtol=1e-5)
    np.testing.assert_array_equal(t["turned"], t["skip"].transpose(1, 2, 0))


def test_a_batch_axis_of_one_is_taken_off():
    graph, x = fused_graph(), small_input()
    for name, want in run(graph, {"x": x}).items():
        np.testing.assert_array_equal(run(graph, {"x": x[None]})[name], want)


def test_a_part_of_a_network_starts_from_codes():
    graph, x = fused_graph(), small_input()
    whole = run(graph, {"x": x})
    part = Graph(graph.nodes[3:6], graph.types, ["a", "b", "gate"], ["logits"]).check()
    tensors = run(part, {t: whole[t] for t in part.inputs})
    assert tensors["a"].dtype == np.int64
    np.testing.assert_array_equal(tensors["logits"], whole["logits"])


def test_given_results_of_float_operators_are_used():
    graph, x = fused_graph(), small_input()
    gate = np.full((9, 3, 4), 0.25, F)
    t = run(graph, {"x": x}, given={"gate": gate})
    np.testing.assert_array_equal(t["gate"], gate)
    assert (t["c"] != run(graph, {"x": x})["c"]).any()
    called = []

    def float_op(node, inputs):
        called.append(node.name)
        return [np.zeros_like(v) for v in inputs]

    t = run(graph, {"x": x}, float_op=float_op, given={"gate": gate})
    assert called == ["abs", "softmax"] and not t["p"].any()


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "no array for the model's input x"),
        ({"x": np.zeros((3, 6, 6))}, r"input x has the shape \(3, 6, 6\)"),
        ({"x": np.zeros((2, 3, 6, 7))}, "input x has the shape"),
        ({"x": np.zeros((3, 6, 7)), "z": np.zeros(1)}, "no input z"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(UsageError, match=message):
        run(fused_graph(), inputs)


def test_nodes_that_cannot_run():
    def fails(message, change):
        graph = fused_graph()
        change(graph)
        with pytest.raises(ModelError, match=message):
            run(graph, {"x": small_input()})

    fails(r"relu \(Clip\) is not fused", lambda g: g.nodes.insert(1, Clip("relu", ["x"], ["a"])))
    fails("layer conv is .* but a term", lambda g: setattr(g.nodes[1], "shape", (9, 3, 3)))
    fails("layer conv: weights of", lambda g: setattr(g.nodes[1].terms[0].parts[0], "groups", 3))
    fails("join .Concat. joins different", lambda g: setattr(g.nodes[7], "inputs", ["sizes", "xq"]))
    fails("sigmoid .* reads the codes a", lambda g: setattr(g.nodes[2], "inputs", ["a"]))


def test_a_float_operator_gets_the_dtypes_that_its_model_declares():
    ports = [
        helper.make_tensor_value_info(name, kind, (1, 2))
        for name, kind in (("i", TensorProto.INT64), ("y", TensorProto.FLOAT))
    ]
    table = numpy_helper.from_array(np.array([10, 20, 30], np.float32), "table")
    graph = helper.make_graph([helper.make_node("Gather", ["table", "i"], ["y"])], "g", ports[:1], ports[1:], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    node = FloatOp("pick", ["i"], ["y"], "Gather", model.SerializeToString())
    assert run_float_op(node, [np.array([2, 0], F)])[0].tolist() == [30, 10]
