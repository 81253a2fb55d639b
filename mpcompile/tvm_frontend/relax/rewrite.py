"""A Relax function whose regions are calls of external functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from mpcompile.tvm_frontend.dataflow import Call, Value
from mpcompile.tvm_frontend.regions import Region
from mpcompile.tvm_frontend.relax.read import flat


def with_regions(function: Any, values: dict, regions: Sequence[Region]) -> relax.Function:
    """The function, each region one call_dps_packed of its name. Variables keep their names; `values`: as dataflow_of
    gives it."""
    blocks = [_Block(block, number, values, regions).rewritten() for number, block in enumerate(function.body.blocks)]
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(function.params, body, function.ret_ty, function.is_pure, function.attrs, function.span)


class _Block:
    """One block: bindings of regions are left out, and their calls put in front of what first reads them."""

    def __init__(self, block, number: int, values: dict, regions: Sequence[Region]):
        self.block, self.values = block, values
        inside = {call: region for region in regions for call in region.covered}
        self.region_of: dict[Call, Region] = {
            call: region for call, region in inside.items() if call.block == number and not call.constant
        }
        self.region_of_variable, self.constants = {}, set()
        for binding in block.bindings:
            calls = {value.call for value in flat(binding.var, values)}
            if len(calls) == 1 and (call := calls.pop()) in inside:
                if not call.constant:
                    self.region_of_variable[binding.var] = inside[call]
                elif isinstance(binding.var, relax.DataflowVar):  # others may be read in other blocks
                    self.constants.add(binding.var)
        self.bindings = {binding.var: binding for binding in block.bindings}
        self.variable: dict[Value, relax.Var] = {}
        self.done: set = set()
        self.made: list = []

    def rewritten(self):
        if not self.region_of:
            return self.block
        for binding in self.block.bindings:
            if binding.var not in self.constants:  # those that only regions read are left out
                self.emit(binding)
        kind = relax.DataflowBlock if isinstance(self.block, relax.DataflowBlock) else relax.BindingBlock
        return kind(self.made, self.block.span)

    def emit(self, binding) -> None:
        """A binding after all that it reads, once."""
        if binding.var in self.done:
            return
        self.done.add(binding.var)
        region = self.region_of_variable.get(binding.var)
        if region is None:
            for variable in relax.analysis.free_vars(binding.value):
                self.need(variable)
            self.made.append(binding)
            return
        held = self.values[binding.var]
        if not isinstance(held, Value) or held not in region.outputs:
            return  # only read inside the region
        self.call(region)
        if not self.variable[held].same_as(binding.var):
            self.made.append(relax.VarBinding(binding.var, self.variable[held]))

    def need(self, variable) -> None:
        if variable in self.bindings:
            self.emit(self.bindings[variable])

    def call(self, region: Region) -> None:
        """The region's call, once."""
        if region.outputs[0] in self.variable:
            return
        for value in region.outputs:
            self.variable[value] = value.origin if isinstance(value.origin, relax.Var) else self.new(value)
        arguments: list[Any] = [self.argument(value) for value in region.inputs]
        types: list[Any] = [self.type_of(value) for value in region.outputs]
        made = relax.op.call_dps_packed(region.name, relax.Tuple(arguments), types if len(types) > 1 else types[0])
        if len(types) == 1:
            self.made.append(relax.VarBinding(self.variable[region.outputs[0]], made))
            return
        together = relax.DataflowVar(f"{region.name}_outputs", relax.TupleType(types))
        self.made.append(relax.VarBinding(together, made))
        for i, value in enumerate(region.outputs):
            self.made.append(relax.VarBinding(self.variable[value], relax.TupleGetItem(together, i)))

    def argument(self, value: Value):
        """The variable that holds a region's input."""
        if isinstance(value.origin, relax.Var):
            self.need(value.origin)
            return value.origin
        if value not in self.variable:
            variable, index = value.origin
            self.need(variable)
            self.variable[value] = self.new(value)
            self.made.append(relax.VarBinding(self.variable[value], relax.TupleGetItem(variable, index)))
        return self.variable[value]

    def new(self, value: Value):
        return relax.DataflowVar("mpcompile", self.type_of(value))

    @staticmethod
    def type_of(value: Value):
        if isinstance(value.origin, relax.Var):
            return value.origin.ty
        variable, index = value.origin
        return variable.ty.fields[index]
