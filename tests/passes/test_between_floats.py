"""What lies between operators that run in float runs in float, and computes what it did; all else stays a layer."""

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.between_floats import BetweenFloats
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError
from mpcompile.ir.graph import (
    Add,
    Affine,
    Clip,
    FloatOp,
    Graph,
    Larger,
    Mul,
    Node,
    Pooling,
    PRelu,
    Quantize,
    Quantizer,
    Reshape,
    Smaller,
    Smooth,
    TensorType,
    Transpose,
)
from mpcompile.ir.grid import twos_complement
from mpcompile.ir.layer import Layer
from mpcompile.reference.interpret import interpret
from mpcompile.runtime.bundle import open_bundle
from tests.compile.test_float_ops import float_op, graph_of

SHAPE = (5, 4, 6)
RNG = np.random.default_rng(0)
X = RNG.normal(0, 1.5, SHAPE).astype(np.float32)
ONE, NONE = np.ones(1), np.zeros(1)


def channels() -> np.ndarray:
    return RNG.normal(1, 0.5, SHAPE[0])


FORMS = {
    "factor": lambda x, y: Affine(y, [x], [y], np.array([0.37]), NONE),
    "sum": lambda x, y: Affine(y, [x], [y], ONE, channels()),
    "line": lambda x, y: Affine(y, [x], [y], channels(), channels()),
    "nothing": lambda x, y: Affine(y, [x], [y], ONE, NONE),
    "relu": lambda x, y: Clip(y, [x], [y], 0.0, np.inf),
    "clip": lambda x, y: Clip(y, [x], [y], -0.5, 0.75),
    "below": lambda x, y: Clip(y, [x], [y], -np.inf, 0.5),
    "above": lambda x, y: Clip(y, [x], [y], -0.25, np.inf),
    "slope": lambda x, y: PRelu(y, [x], [y], np.array([0.2])),
    "slopes": lambda x, y: PRelu(y, [x], [y], channels()),
    "exp": lambda x, y: Smooth(y, [x], [y], "exp"),
    "sigmoid": lambda x, y: Smooth(y, [x], [y], "sigmoid"),
    "tanh": lambda x, y: Smooth(y, [x], [y], "tanh"),
    "erf": lambda x, y: Smooth(y, [x], [y], "erf"),
    "silu": lambda x, y: Smooth(y, [x], [y], "silu", (1.0,)),
    "silu of more": lambda x, y: Smooth(y, [x], [y], "silu", (1.7,)),
    "gelu": lambda x, y: Smooth(y, [x], [y], "gelu"),
    "gelu by tanh": lambda x, y: Smooth(y, [x], [y], "gelu_tanh"),
    "sum of two": lambda x, y: Add(y, [x, "p"], [y]),
    "product": lambda x, y: Mul(y, [x, "p"], [y]),
    "square": lambda x, y: Mul(y, [x, x], [y]),
    "larger": lambda x, y: Larger(y, [x, "p"], [y]),
    "smaller": lambda x, y: Smaller(y, [x, "p"], [y]),
    "mean": lambda x, y: Pooling(y, [x], [y], "avg", SHAPE[1:], (1, 1)),
    "greatest": lambda x, y: Pooling(y, [x], [y], "max", SHAPE[1:], (1, 1)),
}
"""From x, all with p beside it, to y."""


def neg(x: str, y: str, shape=SHAPE) -> FloatOp:
    return float_op("Neg", {x: shape}, {y: shape})


def quantize(x: str, y: str) -> Quantize:
    return Quantize(y, [x], [y], Quantizer(twos_complement(8), 0.05, 0.0, -128))


def graph(nodes: list[Node], outputs: list[str], **shapes) -> Graph:
    made = graph_of(nodes, dict.fromkeys(("x", *(t for n in nodes for t in n.outputs)), SHAPE) | shapes, ["x"], outputs)
    for node in nodes:
        if isinstance(node, Quantize):
            made.types[node.outputs[0]] = TensorType(SHAPE, node.quantizer)
    return made


def in_float(of: Graph) -> set[str]:
    return {n.name for n in BetweenFloats().apply(of).nodes if isinstance(n, FloatOp)}


@pytest.fixture
def of_all() -> Graph:
    """Every form between two operators in float."""
    nodes: list[Node] = [neg("x", "n"), float_op("Tanh", {"x": SHAPE}, {"p": SHAPE})]
    shapes = {}
    for name, form in FORMS.items():
        made = form("n", name)
        shape = (SHAPE[0], 1, 1) if isinstance(made, Pooling) else SHAPE
        nodes += [made, neg(name, f"{name}.y", shape)]
        shapes |= {name: shape, f"{name}.y": shape}
    return graph(nodes, [f"{name}.y" for name in FORMS], **shapes)


def test_every_form_computes_what_it_did(of_all):
    after = apply_all(of_all, TO_LAYERS)
    assert all(isinstance(n, FloatOp) for n in after.nodes)
    assert [n.name for n in after.nodes] == [n.name for n in of_all.nodes]
    before = interpret(of_all, {"x": X})
    again = interpret(after, {"x": X}, before)
    for name in FORMS:
        np.testing.assert_allclose(again[name], before[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_every_form_is_compiled(of_all, tmp_path):
    before = interpret(of_all, {"x": X})
    with open_bundle(compile_model(of_all, "native", tmp_path / "m.mpc"), 1) as bundle:
        got = bundle.run(X)
    for name in of_all.outputs:
        np.testing.assert_allclose(got[name], before[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_a_quantizer_reads_stays_and_all_that_leads_there():
    line, relu = FORMS["line"]("n", "a"), FORMS["relu"]("a", "b")
    assert in_float(graph([neg("x", "n"), line, relu, neg("b", "y")], ["y"])) == {"neg_n", "a", "b", "neg_y"}
    assert in_float(graph([neg("x", "n"), line, relu, quantize("b", "q"), neg("b", "y")], ["q", "y"])) == {
        "neg_n",
        "neg_y",
    }


def test_what_rounds_in_float_reads_a_layer_still():
    round_ = float_op("Round", {"b": SHAPE}, {"y": SHAPE})
    nodes = [neg("x", "n"), FORMS["line"]("n", "a"), FORMS["relu"]("a", "b"), round_]
    assert in_float(graph(nodes, ["y"])) == {"neg_n", "round_y"}


def test_what_a_quantizer_writes_stays_and_all_that_follows():
    nodes = [quantize("x", "q"), FORMS["line"]("q", "a"), FORMS["relu"]("a", "b"), neg("b", "y")]
    assert in_float(graph(nodes, ["y"])) == {"neg_y"}
    beside = [neg("x", "n"), quantize("x", "q"), FORMS["line"]("q", "a"), Add("b", ["a", "n"], ["b"]), neg("b", "y")]
    assert in_float(graph(beside, ["y"])) == {"neg_n", "neg_y"}


def test_what_has_no_form_stays_and_what_is_beside_it():
    curve = Smooth("b", ["a"], ["b"], "softsign")
    nodes = [neg("x", "n"), FORMS["line"]("n", "a"), curve, FORMS["line"]("b", "c"), neg("c", "y")]
    assert in_float(graph(nodes, ["y"])) == {"neg_n", "neg_y"}
    pool = Pooling("b", ["a"], ["b"], "avg", (2, 3), (2, 3))
    small = dict.fromkeys("bcy", (SHAPE[0], 2, 2))
    nodes = [neg("x", "n"), FORMS["line"]("n", "a"), pool, FORMS["relu"]("b", "c"), neg("c", "y", small["c"])]
    assert in_float(graph(nodes, ["y"], **small)) == {"neg_n", "neg_y"}


def test_a_network_without_an_operator_in_float_stays_exact():
    assert not in_float(graph([FORMS["line"]("x", "a"), FORMS["relu"]("a", "y")], ["y"]))


def test_views_are_looked_through_both_ways():
    turned = SHAPE[1:] + SHAPE[:1]
    nodes = [
        neg("x", "n"),
        Transpose("turn", ["n"], ["t"], perm=(1, 2, 0)),
        Affine("a", ["t"], ["a"], np.array([2.0]), np.array([1.0])),
        Reshape("flat", ["a"], ["f"], shape=(120,)),
        float_op("Softmax", {"f": (120,)}, {"y": (120,)}, axis=1),
    ]
    of = graph(nodes, ["y"], t=turned, a=turned, f=(120,), y=(120,))
    assert in_float(of) == {"neg_n", "a", "softmax_y"}
    of.outputs.append("q")
    quantized = quantize("f", "q")
    of.nodes.append(quantized)
    of.types["q"] = TensorType((120,), quantized.quantizer)
    assert in_float(of) == {"neg_n", "softmax_y"}


def test_a_chain_of_layers_between_quantizers_is_one_still():
    nodes = [quantize("x", "q"), FORMS["line"]("q", "a"), FORMS["gelu"]("a", "b"), quantize("b", "r"), neg("r", "y")]
    fused = apply_all(graph(nodes, ["y"]), TO_LAYERS)
    assert sum(isinstance(n, Layer) for n in fused.nodes) <= 2
    assert in_float(fused) == {"neg_y"}


def test_a_constant_that_float32_does_not_hold_is_refused_by_name():
    huge = Affine("scale", ["n"], ["a"], np.array([1e300]), NONE)
    with pytest.raises(ModelError, match=r"node scale \(Affine\): a scale or bias leaves float32"):
        BetweenFloats().apply(graph([neg("x", "n"), huge, neg("a", "y")], ["y"]))
