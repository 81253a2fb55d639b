"""Regions of float operators to scheduled PrimFuncs and the calls of them: emitted, legalised, fused where TVM can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import tvm
from tvm import relax

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.emit import emit_regions
from mpcompile.compiler.float_regions.epilogues import Written, merge
from mpcompile.compiler.float_regions.legalize import legalizations
from mpcompile.compiler.float_regions.read import VIEW, RegionCode, read
from mpcompile.compiler.float_regions.regions import Region
from mpcompile.compiler.float_regions.schedule import schedule
from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp, Graph, Node
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


def lower_regions(graph: Graph, regions: Sequence[Region], target: dict, vectors: Vectors) -> FloatCode:
    """`target`: TVM's dict; `vectors`: what contractions may take of it. All regions are functions of one module, so that
    equal operators share a PrimFunc. Raises ModelError naming the node that TVM cannot compile."""
    emitted = emit_regions(graph, regions, vectors)
    try:
        functions, mod = _lowered(emitted.mod, target, vectors)
    except (
        Exception
    ) as error:  # whatever a legalisation of TVM's happens to: one of the operators has it by itself, too
        for region in regions:
            for node in region.nodes:
                _refuse(graph, node, target, vectors, region)
        raise error
    code = {region.name: read(region, mod[region.name], emitted.nodes) for region in regions}
    return FloatCode(code, functions, (emitted.mod, mod))


def _refuse(graph: Graph, node: Node, target: dict, vectors: Vectors, region: Region) -> None:
    """Raises ModelError where TVM fails at this operator alone."""
    if not isinstance(node, FloatOp):
        return
    alone = Region(region.name, (node,), tuple(dict.fromkeys(node.inputs)), tuple(node.outputs))
    try:
        _lowered(emit_regions(graph, [alone], vectors).mod, target, vectors)
    except Exception as error:
        told = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ModelError(
            f"node {node.name} ({node.op_type}) cannot be compiled: TVM says: {told[-1] if told else type(error).__name__}"
        ) from error


def _lowered(emitted: tvm.IRModule, target: dict, vectors: Vectors) -> tuple[dict[str, PrimFunc], tvm.IRModule]:
    """The PrimFuncs by name, scheduled, and the module that calls them."""
    written: dict[str, Written] = {}
    with Target(target), tvm.transform.PassContext(opt_level=3):
        fused = tvm.transform.Sequential(
            [
                relax.transform.DeadCodeElimination(),
                relax.transform.FoldConstant(),
                relax.transform.LegalizeOps(legalizations(vectors, written), skip_ops=[VIEW]),
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.DeadCodeElimination(),
            ]
        )(emitted)
        mod = merge(fused, written)
    functions = {}
    for gvar, function in list(mod.functions.items()):
        if isinstance(function, PrimFunc):
            functions[gvar.name_hint] = schedule(function, vectors)
            mod.update_func(gvar, functions[gvar.name_hint])
    return functions, mod
