"""Other bits, the same kind: grids, weights, quantizers, and whole graphs that still fuse and compute the same thing
roughly."""

import numpy as np
import pytest

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.ir import grid as grids
from mpcompile.ir.graph import QuantizedWeight, Quantizer
from mpcompile.latency.requantize import kind_of, knobs, quantizer_with_bits, requantize, weight_with_bits, with_bits
from mpcompile.reference.interpret import interpret
from tests.latency.networks import branching

KINDS = {
    "unsigned": [grids.unsigned(b, z) for b in range(1, 9) for z in {0, 1, (1 << b) // 3}],
    "twos_complement": [grids.twos_complement(b) for b in range(2, 9)] + [grids.twos_complement(4, narrow=True)],
    "odd": [grids.odd(b) for b in range(1, 9)],
    "half_integer": [grids.half_integer(b, 1) for b in range(2, 9)],
    "sign_magnitude": [grids.sign_magnitude(b) for b in range(1, 8)],
}
EVERY = [(kind, grid) for kind, members in KINDS.items() for grid in members]


@pytest.mark.parametrize("kind, grid", EVERY, ids=lambda v: str(v))
def test_every_grid_has_siblings_of_its_kind(kind, grid):
    assert kind_of(grid) == kind
    for bits in range(1, 9):
        sibling = with_bits(grid, bits)
        assert sibling.bits == bits or (kind == "sign_magnitude" and bits == 1)
        assert kind_of(sibling) == kind or sibling == grids.bipolar()
        assert sibling.has_zero == grid.has_zero or sibling == grids.bipolar() or kind in ("odd", "half_integer")
    if kind != "unsigned" or grid.offset == 0:
        assert with_bits(grid, grid.bits) == grid


def test_a_foreign_grid_has_none():
    with pytest.raises(ModelError, match="no sibling"):
        kind_of(grids.Grid((1, 3), 0, 0, 1))


@pytest.mark.parametrize("kind, grid", EVERY, ids=lambda v: str(v))
@pytest.mark.parametrize("bits", range(1, 9))
def test_weights_move_to_the_nearest_value(kind, grid, bits):
    old = QuantizedWeight(np.resize(grid.values, (2, 256)), grid, np.array([0.5, 2.0]))
    new = weight_with_bits(old, bits)
    new.grid.level(new.q)
    before, after = old.q * old.scale[:, None], new.q * new.scale[:, None]
    assert np.abs(after).max() <= np.abs(before).max() * (1 + 1e-9)
    inside = (before >= new.grid.lo * new.scale[:, None]) & (before <= new.grid.hi * new.scale[:, None])
    assert (
        np.abs(after - before)[inside] <= (new.grid.step * new.scale[:, None] / 2 + 1e-9 + 0 * before)[inside]
    ).all()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize(
    "quantizer",
    [
        Quantizer(grids.unsigned(4), 0.25),
        Quantizer(grids.unsigned(8, 128), 0.1, 128.0, 0, zero_first=False),
        Quantizer(grids.twos_complement(8), 0.1, 0.0, -128),
        Quantizer(grids.twos_complement(8, narrow=True), 0.1, 0.0, -127),
        Quantizer(grids.bipolar(), 2.0, 0.5, 0, "sign"),
        Quantizer(grids.odd(3), 0.5, 3.5),
    ],
    ids=lambda q: str(getattr(q, "grid", q)),
)
def test_quantizers_count_the_levels_of_their_new_grid(quantizer, bits):
    new = quantizer_with_bits(quantizer, bits)
    assert new.grid.bits == bits
    u = np.arange(new.umin, new.umin + new.grid.levels)
    real = new.scale * new.grid.value(u - new.umin)
    np.testing.assert_allclose(real, new.spacing * (u - new.zero), atol=1e-12)
    assert np.abs(real).max() == pytest.approx(quantizer.scale * quantizer.grid.max_abs)


def test_a_graph_at_other_bits(tmp_path):
    graph = load(branching(tmp_path / "m.onnx"))
    found = knobs(graph)
    assert {k: (v.w, v.a) for k, v in found.items()} == {
        "c0": (2, 2),
        "c1": (1, 2),
        "down": (2, 2),
        "c2": (3, 3),
        "fc": (8, 4),
    }
    assert found["c0"].quantizers == found["down"].quantizers
    wide = requantize(graph, dict.fromkeys(found, 8), {q: 8 for v in found.values() for q in v.quantizers})
    assert all((v.w, v.a) == (8, 8) for v in knobs(wide).values())
    assert all((v.w, v.a) == (was.w, was.a) for v, was in zip(knobs(graph).values(), found.values()))
    assert kind_of(next(n for n in wide.nodes if n.name == "c1").weight.grid) == "twos_complement"
    x = np.abs(np.random.default_rng(1).normal(size=(16, 8, 8))).astype(np.float32)
    before, after = (interpret(g, {g.inputs[0]: x})[g.outputs[0]] for g in (graph, wide))
    assert np.corrcoef(before, after)[0, 1] > 0.5
    shapes = [[(n.name, n.shape) for n in apply_all(g, TO_LAYERS).nodes] for g in (graph, wide)]
    assert shapes[0] == shapes[1]


def test_an_unknown_node_is_named(tmp_path):
    with pytest.raises(ModelError, match="nobody"):
        requantize(load(branching(tmp_path / "m.onnx")), {"nobody": 2}, {})
