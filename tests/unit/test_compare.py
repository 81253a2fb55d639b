"""verify: equal bundles pass, and one changed byte anywhere is found and named."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from mpcompile.errors import ModelError, UsageError
from mpcompile.ir import formats
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Graph, TensorType
from mpcompile.ir.plan import Arg, Placed, Plan
from mpcompile.reference.compare import agreement, verify
from mpcompile.reference.run import run
from tests.unit.fused_graph import fused_graph, small_input

HALO = (1, 2, 1, 1)
# Nothing between the logits and p is stored: TVM fuses chains of float operators.
FORMS = {
    "x": ["plain"],
    "xq": ["codes", "sums/codes"],
    "a": ["planes", "sums/planes", "codes"],
    "b": ["planes", "sums/planes"],
    "skip": ["float", "plain"],
    "gate": ["plain"],
    "c": ["codes", "planes"],
    "y": ["plain"],
    "p": ["plain"],
    "turned": ["plain"],
}


@dataclass
class Recorded:
    """What a bundle offers to verify, with buffers made by the reference itself, to be damaged by the tests."""

    graph: Graph
    damage: dict[str, tuple] = field(default_factory=dict)
    """Buffer.key → (index, value) written into its raw bytes."""
    output: dict[str, float] = field(default_factory=dict)
    """Output → what is added to it."""
    absent: tuple[str, ...] = ()

    @property
    def plan(self) -> Plan:
        placed = []
        for tensor, kinds in FORMS.items():
            t = self.graph.types[tensor]
            for kind in () if tensor in self.absent else kinds:
                name, _, beside = kind.partition("/")
                halo = HALO if t.grid else (0, 0, 0, 0)
                b = Buffer(tensor, name, t.shape, t.grid if name != "plain" else None, halo, beside)
                placed.append(Placed(b, Arg("workspace", 0, b.dtype, b.buffer_shape), 0, 0))
        return Plan((), (), (), tuple(placed), 0, 0)

    def run_traced(self, inputs):
        tensors = run(self.graph, inputs)
        trace = {}
        for placed in self.plan.buffers:
            b = placed.buffer
            raw = formats.encode(tensors[b.tensor], b)
            if b.key in self.damage:
                at, value = self.damage[b.key]
                raw[at] = value
            trace.setdefault(b.tensor, {})[b.key] = raw
        return trace

    def run(self, inputs):
        tensors = run(self.graph, inputs)
        return {name: tensors[name] + np.float32(self.output.get(name, 0)) for name in self.graph.outputs}


def check(damage=None, **more):
    graph = fused_graph()
    return verify(graph, Recorded(graph, damage or {}, **more), {"x": small_input()})


def test_equal():
    report = check()
    assert report.equal and report.samples == 1
    assert report.summary == "16 buffers of 10 tensors and all outputs equal the reference on 1 input"
    assert all(r.elements > 0 and not r.first for r in report.rows)
    columns, rows = report.table()
    assert all(len(r) == len(columns) for r in rows)
    kinds = {(r.tensor, r.format) for r in report.rows}
    assert {("a", "sums(planes)"), ("gate", "plain (near)"), ("p", "output"), ("turned", "output")} <= kinds
    assert json.loads(json.dumps(report.to_json()))["equal"] is True


@pytest.mark.parametrize(
    "key, at, value, tensor, place",
    [
        ("xq:codes", (1, 3, 2), 7, "xq", "channel 2, y 0, x 1: expected"),
        ("xq:codes", (0, 3, 2), 7, "xq", "in the halo, channel 2, y -1, x 1: expected 0, got -121"),
        ("xq:codes", (2, 3, 3), 9, "xq", "past the last channel, channel 3, y 1, x 1: expected -128, got -119"),
        ("xq:sums(codes)", (3, 4), -1, "xq", "y 2, x 2: expected"),
        ("xq:sums(codes)", (3, 9), 0, "xq", "in the halo, y 2, x 7: expected 384, got 0"),
        ("a:planes", (1, 3, 1, 0, 3), 128 + 1, "a", "past the last channel, channel 31, y 0, x 1: expected 0, got 2"),
        ("a:planes", (4, 2, 0, 0, 1), 2, "a", "in the halo, channel 5, y 3, x 0: expected 0, got 1"),
        ("a:sums(planes)", (2, 3), 999, "a", "y 1, x 1: expected"),
        ("skip:float", (1, 1, 15), 1, "skip", "past the last channel, channel 15, y 1, x 1: expected 0, got 1"),
        ("skip:plain", (3, 1, 2), -5, "skip", "at (3, 1, 2): expected"),
        ("y:plain", (4, 0, 0), 1e9, "y", "at (4, 0, 0): expected"),
    ],
)
def test_one_changed_element_is_found(key, at, value, tensor, place):
    report = check({key: (at, value)})
    assert not report.equal
    wrong = [r for r in report.rows if r.differing]
    assert [(f"{r.tensor}:{r.format}", r.differing) for r in wrong] == [(key, 1)]
    assert place in wrong[0].first and wrong[0].first in report.summary and f"{tensor}:" in report.summary


def test_a_flipped_sign_bit_counts_its_channels():
    report = check({"b:planes": ((1, 2, 0, 0, slice(0, 4)), 0)})
    row = next(r for r in report.rows if r.differing)
    graph = fused_graph()
    ones = (run(graph, {"x": small_input()})["b"][:, 0, 0] == 1).sum()
    assert row.differing == ones and row.steps == 1 and row.node == "conv" and "expected 1, got -1" in row.first


def test_a_float_operator_is_compared_with_a_tolerance_and_followed():
    """A gate that is far off is a difference of the operator alone: what follows starts from the bundle's own."""
    report = check({"gate:plain": ((0, 0, 0), 0.9)})
    wrong = {(r.tensor, r.format) for r in report.rows if r.differing}
    assert wrong == {("gate", "plain (near)")}
    graph = fused_graph()
    gate = run(graph, {"x": small_input()})["gate"][0, 0, 0]
    assert check({"gate:plain": ((0, 0, 0), gate * np.float32(1 + 1e-6))}).equal
    assert not check({"gate:plain": ((0, 0, 0), np.nan)}).equal


def test_the_untraced_output_is_checked():
    report = check(output={"p": 0.5, "turned": 0.5})
    assert {(r.tensor, r.format) for r in report.rows if r.differing} == {("p", "output"), ("turned", "output")}


def test_a_float_chain_that_ends_in_an_output_is_compared_with_a_tolerance():
    assert check(absent=("p",)).equal and check(absent=("p",), output={"p": 1e-7}).equal
    report = check(absent=("p",), output={"p": 1e-3})
    row = next(r for r in report.rows if r.tensor == "p")
    assert row.differing == 10 and row.steps == pytest.approx(1e-3, rel=0.01) and "at (0): expected" in row.first
    with pytest.raises(ModelError, match="holds no c of layer mix"):
        check(absent=("c",))


def test_several_samples():
    graph = fused_graph()
    x = np.stack([small_input(1), small_input(2), small_input(3)])
    report = verify(graph, Recorded(graph), {"x": x})
    assert report.equal and report.samples == 3 and "on 3 inputs" in report.summary
    assert next(r for r in report.rows if r.tensor == "x").elements == x.size
    damaged = verify(graph, Recorded(graph, {"y:plain": ((0, 0, 0), 7)}), {"x": x})
    assert damaged.summary.startswith("first difference: dense (Layer), y:plain, input 0, at (0, 0, 0)")
    assert "3 of 15 differ" in damaged.summary


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "no array for the model's input x"),
        ({"x": np.zeros((3, 6, 7)), "z": 1}, "no input z"),
        ({"x": np.zeros((3, 6, 9))}, "has the shape"),
        ({"x": np.zeros((0, 3, 6, 7))}, "or none"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    graph = fused_graph()
    with pytest.raises(UsageError, match=message):
        verify(graph, Recorded(graph), inputs)


def test_another_model():
    graph, other = fused_graph(), fused_graph()
    other.types["a"] = TensorType((9, 3, 4), graph.types["xq"].quantizer)
    with pytest.raises(ModelError, match="a:planes is .* compiled from another model"):
        verify(other, Recorded(graph), {"x": small_input()})
    other.types["a"] = TensorType((9, 3, 4))
    with pytest.raises(ModelError, match="a:planes is .* on .* in the bundle, .* float32 in the model"):
        verify(other, Recorded(graph), {"x": small_input()})
    other = fused_graph()
    other.types.pop("c")
    with pytest.raises(ModelError, match="a tensor c, which the model lacks"):
        verify(other, Recorded(graph), {"x": small_input()})
    other = fused_graph()
    other.nodes[3].outputs, other.types["d"] = ["d"], other.types["c"]
    with pytest.raises(ModelError, match="holds no d of layer mix"):
        verify(other, Recorded(graph), {"x": small_input()})


def test_agreement():
    a = np.array([0, 1, 2, 3], np.uint8)
    assert agreement(a, a) == (1.0, 0)
    assert agreement(a, np.array([0, 1, 2, 0])) == (0.75, 3)
    with pytest.raises(UsageError, match="cannot be compared"):
        agreement(a, a[:2])
