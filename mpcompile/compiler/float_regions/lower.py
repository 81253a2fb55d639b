"""Regions of float operators to scheduled PrimFuncs and the calls of them: emitted, legalised, fused where TVM can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax

from mpcompile.compiler.float_regions.emit import emit_regions
from mpcompile.compiler.float_regions.read import VIEW, RegionCode, read
from mpcompile.compiler.float_regions.regions import Region
from mpcompile.compiler.float_regions.schedule import schedule
from mpcompile.ir.graph import Graph
from mpcompile.kernels.tvm_names import PrimFunc, Target


@dataclass(frozen=True, eq=False)
class FloatCode:
    """Each region's calls, by its name; the PrimFuncs that they call, by theirs. `modules`: the Relax module as it was
    emitted and as it was lowered, to be shown."""

    regions: Mapping[str, RegionCode] = field(default_factory=dict)
    functions: Mapping[str, PrimFunc] = field(default_factory=dict)
    modules: tuple[tvm.IRModule, ...] = ()

    def text(self) -> str:
        """For a reader."""
        if not self.modules:
            return "# no float operators\n"
        titles = ("as emitted", "legalised, fused and scheduled")
        return "\n\n".join(f"# {title}\n{mod.script()}" for title, mod in zip(titles, self.modules)) + "\n"


def lower_regions(graph: Graph, regions: Sequence[Region], target: dict) -> FloatCode:
    """`target`: TVM's dict. All regions are functions of one module, so that equal operators share a PrimFunc. Raises
    ModelError naming the node that TVM cannot compile."""
    emitted = emit_regions(graph, regions)
    with Target(target), tvm.transform.PassContext(opt_level=3):
        mod = tvm.transform.Sequential(
            [
                relax.transform.DeadCodeElimination(),
                relax.transform.FoldConstant(),
                relax.transform.LegalizeOps(skip_ops=[VIEW]),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.DeadCodeElimination(),
            ]
        )(emitted.mod)
    functions = {}
    for gvar, function in list(mod.functions.items()):
        if isinstance(function, PrimFunc):
            functions[gvar.name_hint] = schedule(function)
            mod.update_func(gvar, functions[gvar.name_hint])
    code = {region.name: read(region, mod[region.name], emitted.nodes) for region in regions}
    return FloatCode(code, functions, (emitted.mod, mod))
