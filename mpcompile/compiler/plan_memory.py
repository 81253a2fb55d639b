"""Steps to the static plan: offsets of all buffers in one workspace, by their lifetimes."""

from __future__ import annotations

from collections.abc import Sequence

from mpcompile.compiler.collect_steps import Collected
from mpcompile.compiler.offsets import Interval, live_bytes, place
from mpcompile.ir.graph import Graph
from mpcompile.ir.plan import Call, Placed, Plan, Port


def plan_memory(graph: Graph, collected: Collected) -> Plan:
    """Gives every store of the workspace its offset."""
    here = [s for s in collected.steps.written if s.space == "workspace"]
    intervals = [Interval(s.nbytes, s.written, s.last_read) for s in here]
    offsets, size = place(intervals)
    for store, offset in zip(here, offsets):
        store.offset = offset
    inputs, outputs = (
        [Port(t, graph.types[t].shape, graph.dtypes.get(t, "float32")) for t in ts]
        for ts in (graph.inputs, graph.outputs)
    )
    return placed_plan(collected, inputs, outputs, size, live_bytes(intervals))


def placed_plan(
    collected: Collected, inputs: Sequence[Port], outputs: Sequence[Port], workspace_bytes: int, live: int
) -> Plan:
    """The plan of steps whose stores all have a place. A buffer that is a constant is not among its activations."""
    calls = [
        Call(s.function, s.layer, tuple(store.arg(*p) for store, p in zip(s.args, s.parameters)))
        for s in collected.steps.steps
    ]
    buffers = [
        Placed(buffer, store.arg(buffer.dtype, buffer.buffer_shape), store.written, store.last_read)
        for buffer, store in collected.stored.items()
        if store.space != "weights"
    ]
    return Plan(tuple(inputs), tuple(outputs), tuple(calls), tuple(buffers), workspace_bytes, live)
