"""The pass: quantized regions of a Relay module become external functions of bit-serial operators."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import tvm
from tvm import relay

from mpcompile.errors import UsageError
from mpcompile.records.store import NONE
from mpcompile.tvm_frontend.dataflow import NotMatched, Value
from mpcompile.tvm_frontend.fake_quantize import merge
from mpcompile.tvm_frontend.regions import Region, find_regions
from mpcompile.tvm_frontend.relay import operators
from mpcompile.tvm_frontend.relay.codegen import built
from mpcompile.tvm_frontend.relay.read import dataflow_of
from mpcompile.tvm_frontend.relay.rewrite import with_regions
from mpcompile.tvm_frontend.report import Report, dtype_of, fused, grids, operator_name


class BitSerialize:
    """A pass over Relay modules, which any pipeline can call: `mod = BitSerialize("native")(mod)`.

    Before: a module as a frontend made it, parameters bound (freeze_params=True, or bind_params_by_name of
    relay.build_module). After: each quantized region of its functions is a call of a function with Compiler="mpcompile",
    whose body shows the bit-serial operators; relay.build links their code. Everything else is as it was.

    target: "native", a board's name or a TOML's path, as mpcompile.compile has it; TVM's own target, for the rest of the
    module, is given to relay.build. records: a folder that `tune` wrote. explain: also say of each operator that stayed why
    it did. say: hears each line of what was rewritten; None: nobody.
    Raises TargetError, UsageError, MissingDependency with one line; the module that was given is never changed.
    """

    def __init__(
        self,
        target: str | os.PathLike = "native",
        *,
        records: str | None = None,
        explain: bool = False,
        say: Callable[[str], None] | None = print,
    ):
        self.target = os.path.abspath(target) if str(target).endswith(".toml") else str(target)
        self.records = records if records in (None, NONE) else os.path.abspath(records)
        self.report = Report(say, explain)

    def __call__(self, mod: tvm.IRModule) -> tvm.IRModule:
        if not isinstance(mod, tvm.IRModule):
            raise UsageError(f"BitSerialize takes a module of Relay (tvm.IRModule), not a {type(mod).__name__}")
        mod = relay.transform.InferType()(mod)
        new = tvm.IRModule(mod.functions, mod.type_definitions, attrs=mod.attrs)
        for variable, function in mod.functions.items():
            if not isinstance(function, relay.Function) or (function.attrs and "Compiler" in function.attrs):
                continue
            name = variable.name_hint
            try:
                flow, values = dataflow_of(function, name)
            except NotMatched as reason:
                self.report.unread(name, reason)
                continue
            merge(flow)
            taken = {v.name_hint for v in new.get_global_vars()}
            records = self.records or ""
            found = find_regions(flow, f"{self.target}\n{records}", taken.__contains__)
            layers = {r.name: built(r.model, self.target, r.name, records)[1] for r in found.regions}
            self.report.done(name, found, layers)
            variables = {region.name: relay.GlobalVar(region.name) for region in found.regions}
            for region in found.regions:
                new[variables[region.name]] = region_function(region, layers[region.name], self.target, records)
            if found.regions:
                new.update_func(new.get_global_var(name), with_regions(function, values, found.regions, variables))
        return relay.transform.InferType()(new)


def type_of(value: Value) -> relay.TensorType:
    return relay.TensorType([n if isinstance(n, int) else relay.Any() for n in value.shape], value.dtype)


def region_function(region: Region, layers: Sequence[dict], target: str, records: str) -> relay.Function:
    """The external function: its body is the layers that were built, as operators of ours."""
    batch = region.inputs[0].shape[0] if isinstance(region.inputs[0].shape[0], int) else -1
    parameters = [relay.var(f"{region.name}_i{i}", type_of(value)) for i, value in enumerate(region.inputs)]
    made = dict(zip(region.graph.inputs, parameters))
    for row in layers:
        outputs = [((batch, *out["shape"]), dtype_of(out)) for out in row["outputs"]]
        attrs = {"name": row["name"], "fused": fused(row), **grids(row)}
        results = operators.layer(operator_name(row), [made[t] for t in row["inputs"]], outputs, attrs)
        made |= {out["tensor"]: result for out, result in zip(row["outputs"], results)}
    body = operators.region([made[t] for t in region.graph.outputs], region.model, target, records)
    kinds = [type_of(value) for value in region.outputs]
    function = relay.Function(parameters, body, kinds[0] if len(kinds) == 1 else relay.TupleType(kinds))
    return function.with_attr(
        {
            "Primitive": tvm.tir.IntImm("int32", 1),
            "Inline": tvm.tir.IntImm("int32", 1),
            "Compiler": "mpcompile",
            "global_symbol": region.name,
        }
    )
