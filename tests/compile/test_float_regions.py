"""pipeline.plan: layers go to the plan directly, TVM's Relax sees the regions of float operators and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from mpcompile.api.compile import compile_model
from mpcompile.compiler import backend, pipeline
from mpcompile.compiler.float_regions.regions import Region, regions_of, split
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.compiler.steps import Steps
from mpcompile.compiler.weights_block import WeightsBlock
from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.ir.graph import Affine, Graph, Node, Reshape, Smooth, Transpose
from mpcompile.ir.layer import Layer
from mpcompile.runtime.bundle import open_bundle
from mpcompile.targets import load_target
from tests.compile.plans import check_plan
from tests.compile.test_float_ops import float_op, graph_of

MODEL = Path(__file__).parents[1] / "data" / "brevitas_residual_w3a4.onnx"
TARGET = load_target("x86-64-v3")
SHAPE = (4, 6)


def planned(graph: Graph, **options) -> pipeline.Planned:
    found = pipeline.plan(graph, TARGET, pipeline.Options(**options))
    check_plan(found.plan)
    assert list(found.functions) == list(dict.fromkeys(c.function for c in found.plan.calls))
    return found


def affine(x: str, y: str, factor: float = 2.0) -> Affine:
    """A layer of its own, unless operators in float are beside it."""
    return Affine(y, [x], [y], a=np.full(1, factor), b=np.zeros(1))


def curved(x: str, y: str, factor: float = 2.0) -> list[Node]:
    """A layer of its own everywhere: softsign has no form in float."""
    return [Smooth(f"{y}.curve", [x], [f"{y}.curve"], "softsign"), affine(f"{y}.curve", y, factor)]


def softsign(x):
    return x / (1 + np.abs(x))


def op(kind: str, reads: list[str], y: str, **attributes):
    return float_op(kind, dict.fromkeys(reads, SHAPE), {y: SHAPE}, **attributes)


def graph(nodes: list[Node], outputs: list[str], **shapes) -> Graph:
    types = {t: shapes.get(t, SHAPE) for t in ("x", *(t for n in nodes for t in n.outputs))}
    return graph_of(nodes, types, ["x"], outputs)


def regions(of: Graph) -> list[list[str]]:
    """The outputs of each region's nodes."""
    found = regions_of(split(apply_all(of, TO_LAYERS)))
    return [[t for n in region.nodes for t in n.outputs] for region in found]


def place(found: pipeline.Planned, tensor: str):
    (buffer,) = (p for p in found.plan.buffers if p.buffer.tensor == tensor and p.buffer.format == "plain")
    return buffer


def run(of: Graph, folder: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    with open_bundle(compile_model(of, "native", folder / "m.mpc"), 1) as bundle:
        got = bundle.run(x)
    return got if isinstance(got, dict) else {of.outputs[0]: got}


X = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def test_a_network_of_layers_does_not_see_relax(monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "lower_regions", lambda *args: seen.append(args))
    found = planned(load(MODEL))
    assert not seen and found.plan.calls
    assert {c.layer for c in found.plan.calls} == {n.name for n in found.graph.nodes if isinstance(n, Layer)}
    assert all(c.function.startswith("mp_") for c in found.plan.calls)
    assert set(found.lowered) == {c.layer for c in found.plan.calls}


def test_no_machine_code_is_made(monkeypatch):
    monkeypatch.setattr(backend.CpuBackend, "build_objects", None)
    assert planned(load(MODEL)).weights


def test_two_regions_between_layers(tmp_path):
    nodes = [
        *curved("x", "a"),
        op("Sigmoid", ["a"], "s"),
        op("Mul", ["s", "a"], "m"),
        *curved("m", "b", 3.0),
        op("Tanh", ["b"], "t"),
        op("Neg", ["t"], "n"),
        *curved("n", "y", 0.5),
    ]
    of = graph(nodes, ["y"])
    assert regions(of) == [["s", "m"], ["t", "n"]]
    found = planned(of)
    assert [c.layer for c in found.plan.calls] == ["a.curve", "mul_m", "b.curve", "neg_n", "y.curve"]
    assert {p.buffer.tensor for p in found.plan.buffers} == {"x", "a", "m", "b", "n", "y"}
    a = 2 * softsign(X)
    want = 0.5 * softsign(-np.tanh(3 * softsign(a / (1 + np.exp(-a)))))
    np.testing.assert_allclose(run(of, tmp_path, X)["y"], want, rtol=1e-5)


def test_a_regions_output_that_is_an_output_and_its_input_that_is_an_input(tmp_path):
    of = graph([op("Sigmoid", ["x"], "s"), op("Neg", ["s"], "n"), *curved("s", "y")], ["s", "n", "y"])
    (region,) = (u for u in split(apply_all(of, TO_LAYERS)) if isinstance(u, Region))
    assert region.inputs == ("x",) and region.results == ("s", "n")
    found = planned(of)
    first = found.plan.calls[0]
    assert (first.args[0].space, first.args[1].space) == ("input", "output")
    assert [place(found, t).arg.offset for t in ("s", "n", "y")] == [0, 1, 2]
    got = run(of, tmp_path, X)
    np.testing.assert_allclose(got["s"], 1 / (1 + np.exp(-X)), rtol=1e-5)
    np.testing.assert_array_equal(got["n"], -got["s"])
    np.testing.assert_allclose(got["y"], 2 * softsign(got["s"]), rtol=1e-6)


def test_outputs_that_are_the_input_and_a_view_of_it(monkeypatch):
    """Copies, and no Relax: a reshape is the same bytes."""
    monkeypatch.setattr(pipeline, "lower_regions", None)
    of = graph([Reshape("flat", ["x"], ["v"], shape=(24,)), affine("x", "y")], ["x", "v", "y"], v=(24,))
    found = planned(of)
    assert [(c.function, c.layer) for c in found.plan.calls] == [
        ("mp_y", "y"),
        ("mp_copy_24", "mp_copy_24"),
        ("mp_copy_24", "flat"),
    ]
    assert [(c.args[0].space, c.args[-1].space, c.args[-1].offset) for c in found.plan.calls[1:]] == [
        ("input", "output", 0),
        ("input", "output", 1),
    ]
    assert place(found, "v").arg.space == "input" and place(found, "v").buffer.shape == (24,)


def test_outputs_that_share_bytes_are_copied_once_written(tmp_path):
    of = graph(
        [affine("x", "y"), Reshape("flat", ["y"], ["v"], shape=(24,)), Reshape("back", ["v"], ["w"], shape=(6, 4))],
        ["v", "w", "y"],
        v=(24,),
        w=(6, 4),
    )
    got = run(of, tmp_path, X)
    for tensor, shape in (("v", (24,)), ("w", (6, 4)), ("y", SHAPE)):
        np.testing.assert_array_equal(got[tensor], (2 * X).reshape(shape))


def layer(reads: list[str], y: str) -> Layer:
    """Stands for one where only the order counts."""
    return Layer(y, reads, [y])


def order(nodes: list[Node], outputs: list[str]) -> list:
    """Names of layers and views, lists of the nodes' outputs for regions."""
    units = split(graph(nodes, outputs))
    return [[t for n in u.nodes for t in n.outputs] if isinstance(u, Region) else u.name for u in units]


def test_reshapes_at_the_ends_of_a_region_are_views():
    nodes = [
        layer(["x"], "a"),
        Reshape("before", ["a"], ["f"], shape=SHAPE),
        op("Sigmoid", ["f"], "s"),
        Reshape("inside", ["s"], ["i"], shape=SHAPE),
        Transpose("turn", ["i"], ["t"], perm=(1, 0)),
        Reshape("behind", ["t"], ["b"], shape=SHAPE),
        layer(["b"], "y"),
    ]
    assert order(nodes, ["y"]) == ["a", "before", ["s", "i", "t"], "behind", "y"]
    (region,) = regions_of(split(graph(nodes, ["y"])))
    assert region.inputs == ("f",) and region.results == ("s", "i", "t")


def test_a_chain_with_a_layer_in_between_is_brought_together():
    """The later operator runs before the layer, or else, where it reads what the layer writes, the earlier one behind
    it. What a layer or the caller reads stays where it is."""
    first = [layer(["x"], "a"), op("Sigmoid", ["a"], "s"), layer(["a"], "b")]
    earlier, later = op("Neg", ["s"], "n"), op("Mul", ["s", "b"], "n")
    assert order([*first, earlier, layer(["n"], "y")], ["y", "b"]) == ["a", ["s", "n"], "b", "y"]
    assert order([*first, later, layer(["n"], "y")], ["y"]) == ["a", "b", ["s", "n"], "y"]
    assert order([*first, earlier], ["n", "s", "b"]) == ["a", ["s"], "b", ["n"]]
    read = [layer(["x"], "a"), op("Sigmoid", ["a"], "s"), layer(["s"], "b"), op("Neg", ["s"], "n")]
    assert order(read, ["n", "b"]) == ["a", ["s"], "b", ["n"]]


def test_a_call_for_a_tensor_that_stays_inside_names_its_node():
    """Softmax is not fused into the softmax that reads it."""
    nodes = [affine("x", "a"), op("Softmax", ["a"], "p", axis=1), op("Softmax", ["p"], "q", axis=2), affine("q", "y")]
    found = planned(graph(nodes, ["y"]))
    assert [c.layer for c in found.plan.calls] == ["a", "softmax_p", "softmax_q", "y"]
    assert "p" not in {p.buffer.tensor for p in found.plan.buffers}


def test_equal_layers_share_a_function_and_equal_constants_their_bytes():
    one = planned(graph(curved("x", "a"), ["a"]))
    two = planned(graph([*curved("x", "a"), op("Sigmoid", ["a"], "s"), *curved("s", "b")], ["b"]))
    assert [c.function for c in two.plan.calls if c.function.startswith("mp_")] == ["mp_a_curve", "mp_a_curve"]
    assert one.weights and two.weights == one.weights


def test_constants_are_stored_once_and_aligned():
    block = WeightsBlock()
    a, b = np.arange(5, dtype=np.int32), np.ones(3, np.float32)
    assert [block.add(x) for x in (a, b, a.copy(), b.reshape(3, 1), a.T)] == [0, 64, 0, 64, 0]
    assert bytes(block) == a.tobytes() + bytes(44) + b.tobytes()


def test_a_call_with_other_sizes_is_refused():
    found = planned(graph([affine("x", "y")], ["y"]))
    (function,) = found.functions.values()
    steps = Steps()
    with pytest.raises(ModelError, match=r"node y: mp_y takes \["):
        steps.call("mp_y", function, [], [8], "y")


def test_what_was_not_fused_is_refused():
    with pytest.raises(ModelError, match=r"node y \(Affine\) is not fused"):
        split(graph([affine("x", "y")], ["y"]))


def test_names_that_give_the_same_function_name():
    turned = float_op("Transpose", {"a/1": SHAPE}, {"t": SHAPE[::-1]}, perm=[0, 2, 1])
    nodes = [*curved("x", "a/1"), turned, *curved("t", "a.1")]
    found = planned(graph(nodes, ["a.1"], **dict.fromkeys(("t", "a.1", "a.1.curve"), SHAPE[::-1])))
    assert [c.function for c in found.plan.calls if c.function.startswith("mp_")] == ["mp_a_1_curve", "mp_a_1_curve__2"]


def test_rounding_is_a_vectors_and_goes_with_functions(tmp_path):
    """TVM makes no vector of its own nearbyint, and fails where a loop with it binds a value, as sigmoid's does."""
    nodes = [
        op("Round", ["x"], "r"),
        op("Sigmoid", ["r"], "s"),
        op("Mul", ["r", "s"], "y"),
    ]
    x = (X * 3).astype(np.float32)
    found = planned(graph(nodes, ["y"]))
    (function,) = found.functions.values()
    assert "nearbyint" in str(function) and "tirx.nearbyint" not in str(function)
    rounded = np.round(x)
    expected = rounded / (1 + np.exp(-rounded.astype(np.float64)))
    np.testing.assert_allclose(run(graph(nodes, ["y"]), tmp_path, x)["y"], expected, rtol=1e-6)
