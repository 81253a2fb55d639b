"""What the tests of rows, blocks and transposed convolutions share."""

from __future__ import annotations

import numpy as np

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.ir.layer import Layer
from mpcompile.reference.interpret import interpret
from mpcompile.reference.run import run

F32 = np.float32


def layers(graph) -> list[Layer]:
    """Of a graph that becomes layers alone, which compute what it does in real numbers."""
    fused = apply_all(graph, TO_LAYERS)
    assert {n.op for n in fused.nodes} == {"Layer"}
    x = {"x": np.random.default_rng(5).normal(0, 1, graph.types["x"].shape).astype(F32)}
    mine, theirs = run(fused, x), interpret(graph, x)
    for name in graph.outputs:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=0, atol=1e-5 * np.abs(theirs[name]).max())
    return [n for n in fused.nodes if isinstance(n, Layer)]


def terms(found: list[Layer]) -> list[str]:
    return [type(t).__name__ for layer in found for t in layer.terms]
