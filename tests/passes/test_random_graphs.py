"""Property: whatever the graph, rewriting passes change no value, and each layer is what its operators are in real
numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.graph import FloatOp, Reshape, Transpose
from mpcompile.ir.layer import Layer, Round
from mpcompile.reference.interpret import codes, interpret
from mpcompile.reference.run import layer as run_layer
from mpcompile.reference.run import run
from tests.passes.random_graphs import random_graph

SEEDS = range(12)
A_SEED = 25
FUSE = [p.name for p in TO_LAYERS].index("fuse_layers")


def layerwise(rewritten, fused, values):
    """(name, rounds in its layer, got, wanted, step) of each layer's outputs, each layer fed with `values`."""
    for node in fused.nodes:
        if not isinstance(node, Layer):
            continue
        tensors = {}
        for t in node.inputs:
            quantizer = fused.types[t].quantizer
            value = values[t if t in rewritten.types else t.removesuffix(".codes")]
            tensors[t] = codes(value, quantizer) if quantizer else value
        rounds = sum(isinstance(i, Round) for i in node.epilogue)
        for result, got in zip(node.results, run_layer(node, tensors)):
            wanted = values[result.name if result.name in rewritten.types else result.name.removesuffix(".codes")]
            wanted = wanted.reshape(got.shape)
            if result.quantizer:
                yield result.name, rounds, got, codes(wanted, result.quantizer), result.quantizer.grid.step
            else:
                yield result.name, rounds, got, wanted, None


@pytest.mark.parametrize("picking, moving", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", SEEDS)
def test_layers_are_the_operators_that_they_fuse(seed, picking, moving):
    total = wrong = 0
    for number in range(seed * A_SEED, (seed + 1) * A_SEED):
        graph, inputs, values = random_graph(number, picking=picking, moving=moving)
        rewritten = apply_all(graph, TO_LAYERS[:FUSE])
        again = interpret(rewritten, inputs)
        for t in set(again) & set(values):
            np.testing.assert_array_equal(again[t], values[t], f"{number}: {t}")
        fused = apply_all(rewritten, TO_LAYERS[FUSE:])
        assert {n.op for n in fused.nodes} <= {"Layer", "FloatOp", "Reshape", "Transpose"}
        for name, rounds, got, wanted, step in layerwise(rewritten, fused, again):
            if step is None:
                size = np.abs(wanted).max(initial=1e-3)
                if rounds == 0:
                    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6 * size, err_msg=f"{number}: {name}")
                continue
            off = np.abs(got - wanted) // step
            if rounds == 1:
                assert off.max(initial=0) <= 1, (number, name)
            total += off.size
            wrong += np.count_nonzero(off)
    assert total > 10000
    assert wrong <= total / 1000, (wrong, total)


@pytest.mark.parametrize("seed", SEEDS)
def test_fused_graphs_run_from_end_to_end(seed):
    for number in range(seed * A_SEED, (seed + 1) * A_SEED, 5):
        graph, inputs, _ = random_graph(number)
        fused = apply_all(graph, TO_LAYERS)
        tensors = run(fused, inputs)
        for t in graph.outputs:
            assert tensors[t].shape == graph.types[t].shape
            assert tensors[t].dtype == np.float32
        readers = {t for n in fused.nodes for t in n.inputs} | set(fused.outputs)
        for node in fused.nodes:
            assert readers & set(node.outputs), f"{number}: nothing reads {node.outputs}"
            if isinstance(node, (FloatOp, Reshape, Transpose)):
                assert not any(fused.types[t].quantizer for t in (*node.inputs, *node.outputs))
