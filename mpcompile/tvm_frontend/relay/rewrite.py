"""A Relay module whose regions are external functions, called where their operators were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import relay

from mpcompile.tvm_frontend.dataflow import Value
from mpcompile.tvm_frontend.regions import Region
from mpcompile.tvm_frontend.relay.read import in_order


def with_regions(
    function: relay.Function,
    values: Mapping[Any, tuple[Value, ...]],
    regions: Sequence[Region],
    variables: Mapping[str, relay.GlobalVar],
) -> relay.Function:
    """The function, each region one call of its global variable. `values`: as dataflow_of gives it."""
    inside = {call for region in regions for call in region.covered if not call.constant}
    maker = {value: region for region in regions for value in region.outputs}
    new: dict[Any, Any] = {parameter: parameter for parameter in function.params}
    called: dict[str, relay.Call] = {}
    held: dict[Value, Any] = {}

    def expression_of(value: Value) -> Any:
        """What stands for a tensor in the new function."""
        if value in held:
            return held[value]
        if value in maker:
            region = maker[value]
            if region.name not in called:
                called[region.name] = relay.Call(variables[region.name], [expression_of(v) for v in region.inputs])
            made = called[region.name]
            index = region.outputs.index(value)
            held[value] = made if len(region.outputs) == 1 else relay.TupleGetItem(made, index)
        elif isinstance(value.origin, tuple):
            made, index = value.origin
            held[value] = relay.TupleGetItem(rebuilt(made), index)
        else:
            held[value] = rebuilt(value.origin)
        return held[value]

    def rebuilt(made: Any) -> Any:
        """An expression that is in no region, over what is new below it."""
        waiting = [made]
        while waiting:
            at = waiting[-1]
            if at in new:
                waiting.pop()
                continue
            below = (
                [at.tuple_value]
                if isinstance(at, relay.TupleGetItem)
                else [*getattr(at, "fields", getattr(at, "args", ()))]
            )
            needed = [b for b in below if b not in new and not replaced(b)]
            if needed:
                waiting += needed
                continue
            new[at] = copy(at)
            waiting.pop()
        return new[made]

    def replaced(made: Any) -> bool:
        found = values[made]
        return len(found) == 1 and found[0] in maker

    def part(made: Any) -> Any:
        return expression_of(values[made][0]) if replaced(made) else new[made]

    def copy(at: Any) -> Any:
        if isinstance(at, relay.Call):
            return relay.Call(at.op, [part(a) for a in at.args], at.attrs, at.type_args, at.span)
        if isinstance(at, relay.Tuple):
            return relay.Tuple([part(f) for f in at.fields], at.span)
        if isinstance(at, relay.TupleGetItem):
            return relay.TupleGetItem(part(at.tuple_value), at.index, at.span)
        return at

    for made in in_order(function.body):  # from the beginning, so that nothing goes deep
        known = values.get(made)
        if known is None or any(v.call in inside for v in known) or (isinstance(made, relay.Constant)):
            continue
        rebuilt(made)
    body = expression_of(values[function.body][0]) if replaced(function.body) else rebuilt(function.body)
    return relay.Function(function.params, body, function.ret_type, function.type_params, function.attrs, function.span)
