"""Which operators of a model run in float, and why; and refusing a model that has any."""

from __future__ import annotations

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.between_floats import BetweenFloats
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp, Graph


def float_operators(graph: Graph) -> list[FloatOp]:
    """In the order in which they run, of a graph as `load` gives it; concats that no layer reads in parts are among
    them. What has a form of its own and runs in float with these, since it lies between them, is not."""
    passes = [p for p in TO_LAYERS if not isinstance(p, BetweenFloats)]
    return [node for node in apply_all(graph, passes).nodes if isinstance(node, FloatOp)]


def require_quantized(graph: Graph) -> None:
    """Raises ModelError, naming the first one and how many others there are, where an operator runs in float."""
    found = float_operators(graph)
    if not found:
        return
    first, others = found[0], len(found) - 1
    more = f", and {others} other{'s' * (others > 1)} would" if others else ""
    raise ModelError(
        f"node {first.name} ({first.op_type}) would run in float: {first.reason or 'it has no form on integers'}{more}; "
        "with all operators quantized it would be accepted, or without --require-quantized (`inspect` lists them)"
    )
