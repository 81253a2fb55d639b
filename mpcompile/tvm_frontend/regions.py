"""Which calls of a function go together to our compiler: its quantized regions.

Before: a Dataflow. After: regions, each of which can run as one call (no path leaves it and comes back), reads and writes
float32 tensors only, is read by the frontend, and holds a layer on integers; and of every other call why it is in none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.ir.graph import Conv, Dense, FloatOp, Graph
from mpcompile.temporary import temporary_folder
from mpcompile.tvm_frontend import operators, quantizers  # noqa: F401  (their handlers)
from mpcompile.tvm_frontend.dataflow import Call, Dataflow, NotMatched, Value
from mpcompile.tvm_frontend.write import why_not, write

CONTRACTIONS = ("nn.conv2d", "nn.conv1d", "nn.dense", "matmul")
IN_FLOAT = ("Conv", "Gemm", "MatMul")
"""What the frontend calls contractions that it can only do in float: those stay with TVM."""


@dataclass(eq=False)
class Region:
    """`calls` in order, those over constants that they need included; `model`: the same as an ONNX file; `graph`: as the
    frontend reads it. `name` is a C identifier."""

    name: str
    calls: list[Call]
    inputs: list[Value]
    outputs: list[Value]
    model: bytes = b""
    graph: Graph = field(default_factory=Graph)

    @property
    def covered(self) -> list[Call]:
        """Its calls, and those that they absorbed."""
        return [c for call in self.calls for c in (*call.absorbed, call)]


@dataclass(eq=False)
class Found:
    """`left`: calls that are in no region, and why."""

    regions: list[Region]
    left: list[tuple[Call, str]]


def find_regions(flow: Dataflow, compiled_for: str, taken: Callable[[str], bool]) -> Found:
    """All regions of a function, in the order in which they can run.

    compiled_for: what else decides on their code; taken: whether the module has a function of that name already. A
    region's name is the symbol of its code, and says what is in it: modules that are linked into one program, or loaded
    with symbols for all, do not get each other's.
    """
    reasons = {call: reason for call in flow.calls if (reason := why_not(call))}
    for call in flow.calls:
        if call not in reasons and (bad := next((c for c in over_constants(call) if c in reasons), None)):
            reasons[call] = f"a constant that it reads: {reasons[bad]}"
    while True:
        regions = grouped(flow, reasons)
        refused = [(region, refusals(region)) for region in regions]
        if not any(more for _, more in refused):
            break
        for _, more in refused:
            reasons |= more
    for region in regions:
        region.name = symbol_of(region, compiled_for, taken)
    inside = {call for region in regions for call in region.calls}
    left = [(call, reasons[call]) for call in flow.calls if call not in inside and call in reasons]
    return Found(regions, left)


def symbol_of(region: Region, compiled_for: str, taken: Callable[[str], bool]) -> str:
    """Its name and a digest of its model and what else decides on its code."""
    while True:
        digest = hashlib.sha256(region.model + compiled_for.encode()).hexdigest()[:8]
        if not taken(name := f"{region.name}_{digest}"):
            return name
        compiled_for += "+"  # the same again, behind a part of the module that a pass took before


def over_constants(call: Call) -> list[Call]:
    """The calls over constants that this one needs, in order."""
    found: dict[Call, None] = {}

    def visit(value: Value) -> None:
        if value.call is not None and value.constant:
            for read in value.call.inputs:
                visit(read)
            found[value.call] = None

    for value in call.inputs:
        visit(value)
    return list(found)


def grouped(flow: Dataflow, reasons: dict[Call, str]) -> list[Region]:
    """Calls for which there is no reason, joined along the values between them as long as each group can run as one."""
    moving = [call for call in flow.calls if not call.constant]
    group = {call: i for i, call in enumerate(moving)}
    members: dict[int, list[Call]] = {i: [call] for call, i in group.items()}
    after: dict[int, set[int]] = {i: set() for i in members}
    for call in moving:
        for value in call.inputs:
            if value.call in group:
                after[group[value.call]].add(group[call])
    for call in moving:
        for value in call.inputs:
            if call in reasons or value.call is None or value.call not in group or value.call in reasons:
                continue
            one, other = group[value.call], group[call]
            if one == other or value.call.block != call.block or way_round(after, one, other):
                continue
            for moved in members.pop(other):
                group[moved] = one
                members[one].append(moved)
            after[one] = (after[one] | after.pop(other)) - {one, other}
            for following in after.values():
                if other in following:
                    following.discard(other)
                    following.add(one)
            after[one].discard(one)
    wanted = [m for m in members.values() if any(c.op in CONTRACTIONS and c not in reasons for c in m)]
    return [region_of(flow, calls, f"mpcompile_{flow.name}_{i}") for i, calls in enumerate(wanted)]


def way_round(after: dict[int, set[int]], one: int, other: int) -> bool:
    """Whether there is a way from a group to another one through a third: then the two cannot run as one."""
    seen, waiting = set(), [g for g in after[one] if g != other]
    while waiting:
        g = waiting.pop()
        if g == other:
            return True
        if g not in seen:
            seen.add(g)
            waiting += after[g]
    return False


def region_of(flow: Dataflow, calls: Iterable[Call], name: str) -> Region:
    """With its ports, and what it needs of calls over constants."""
    inside = set(calls)
    for call in list(inside):
        inside.update(over_constants(call))
    ordered = [call for call in flow.calls if call in inside]
    made = {v for call in ordered for v in call.outputs}
    inputs = dict.fromkeys(v for call in ordered for v in call.inputs if v not in made and v.array is None)
    read_outside = {v for call in flow.calls if call not in inside for v in call.inputs} | set(flow.results)
    outputs = [v for call in ordered if not call.constant for v in call.outputs if v in read_outside]
    return Region(name, ordered, list(inputs), outputs)


def refusals(region: Region) -> dict[Call, str]:
    """Calls of it that cannot be there after all, and why. Where there are none, its model and graph are set."""
    found: dict[Call, str] = {
        call: "more than its first result is read"
        for call in region.calls
        if any(v in region.outputs for v in call.outputs[1:])
    }
    ports = set(region.inputs) | set(region.outputs)
    for call in region.calls:
        for value in (*call.inputs, *call.outputs):
            if value in ports and value.dtype != "float32":
                found[call] = f"{value.dtype} would go into or out of the region, and only float32 may"
    if found:
        return found
    try:
        model, call_of = write(region.calls, region.inputs, region.outputs, region.name)
    except NotMatched as reason:  # of calls that may stand alone, and not together
        return dict.fromkeys(region.calls, str(reason))
    region.model = model.SerializeToString()
    with temporary_folder() as folder:
        path = folder / f"{region.name}.onnx"
        path.write_bytes(region.model)
        try:
            region.graph = load(path)
        except ModelError as error:
            named = [call for node, call in call_of.items() if f" {node} " in f" {error} " and not call.constant]
            return dict.fromkeys(named or region.calls, str(error))
    for node in region.graph.nodes:
        if isinstance(node, FloatOp) and node.op_type in IN_FLOAT:
            whose = [call_of[node.name]] if node.name in call_of else region.calls
            found |= dict.fromkeys(whose, node.reason or "it has no form on integers")
    if not found and not any(isinstance(node, (Conv, Dense)) for node in region.graph.nodes):
        return dict.fromkeys(region.calls, "no layer on integers is near it")
    return found
