"""From a model to machine code, in phases and in order: `plan` decides everything, `build` and `link` make code of it.

    1 import      file → Graph of real-valued operators                                   (frontend)
    plan:
    2 layers      reshapes and pools sink, concats split, operators fuse → Layer nodes    (passes/to_layers.py)
    3 formats     a family for each contraction, stored forms for each tensor             (passes/choose_formats.py)
    4 float       regions of float operators → Relax → fused, scheduled PrimFuncs         (float_regions/)
    5 kernels     each Layer → a scheduled PrimFunc and its packed weights                (lower_layers.py)
    6 plan        the calls and what they read and write; offsets of all buffers          (collect_steps.py, plan_memory.py)
    then:
    7 build       PrimFuncs → machine code in object files                                (library.py)
    8 link        object files → lib.so of a bundle (library.py), or a C library          (c_export/)

With a folder to dump into, the import and each phase of `plan` leave what they made there as text: 01-import.txt,
02-layers-fold_transposes.txt, …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpcompile.compiler.backend import backend_of, tvm_dict
from mpcompile.compiler.collect_steps import collect_steps
from mpcompile.compiler.dump import Dump
from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.lower import FloatCode, lower_regions
from mpcompile.compiler.float_regions.regions import Region, regions_of, split
from mpcompile.compiler.lower_layers import kernels_text, lower_layers
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.choose_formats import Allowed, ChooseFormats, FormatChoice, allowed_by
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.compiler.plan_memory import plan_memory
from mpcompile.compiler.print_graph import graph_text
from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp, Graph
from mpcompile.ir.plan import Plan
from mpcompile.kernels.architecture import Tile
from mpcompile.kernels.layer import Lowered, Tiles
from mpcompile.kernels.tvm_names import PrimFunc
from mpcompile.targets import Target


@dataclass(frozen=True)
class Options:
    """`families`: layer → family ("*": every layer that can have it), instead of the cheapest by the cost model;
    `allowed`: the families that a contraction may have, as choose_formats has it. `tiles`: layer → the schedule's tile;
    `tuned` chooses those of the others, which have their default without it. `progress` hears what is being done, one
    short line at a time."""

    families: Mapping[str, str] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=dict)
    tiles: Mapping[str, Tile] = field(default_factory=dict)
    tuned: Tiles | None = None
    dump: Path | None = None
    progress: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, eq=False)
class Planned:
    """All that is decided about a network, and no machine code yet.

    graph: of layers and float operators. assignment: its families and stored forms. lowered: layer → its kernel.
    functions: name → scheduled PrimFunc, everything that the plan calls, in the order of the first call. weights: the
    constants, at the offsets that the plan names.
    """

    graph: Graph
    assignment: FormatChoice
    lowered: Mapping[str, Lowered]
    plan: Plan
    functions: Mapping[str, PrimFunc]
    weights: bytes


def plan(source: Graph, target: Target, options: Options = Options()) -> Planned:
    """Phases 2 to 6 for a normalised graph, which is the frontend's. Raises MpError's subclasses."""
    dump, say = Dump(options.dump), options.progress
    dump("import", lambda: graph_text(source))

    say("fusing operators into layers")
    graph = apply_all(source, TO_LAYERS, lambda p, g: dump(f"layers-{p.name}", lambda: graph_text(g)))

    say("choosing kernel families and formats")
    allowed = {**options.allowed, **allowed_by(options.families, graph, target)}
    assignment = ChooseFormats(target, allowed).apply(graph)
    dump("formats", lambda: graph_text(graph, assignment.buffers, assignment.families))

    units = split(graph)
    regions = regions_of(units)
    _check_float(regions, target)
    floats = lower_regions(graph, regions, tvm_dict(target), Vectors.of(target)) if regions else FloatCode()
    dump("float", floats.text)

    kernels = lower_layers(graph, assignment, target, options.tiles, options.tuned, floats.functions, say)
    dump("kernels", lambda: kernels_text(kernels))

    collected = collect_steps(graph, units, assignment, kernels, floats)
    plan = plan_memory(graph, collected)
    dump("plan", lambda: json.dumps(plan.to_json(), indent=1))

    lowered = {layer: kernel.lowered for layer, kernel in kernels.items()}
    return Planned(graph, assignment, lowered, plan, collected.steps.functions, bytes(collected.steps.weights))


def _check_float(regions: Sequence[Region], target: Target) -> None:
    """Raises ModelError naming the first operator in float where the board's kind runs none."""
    if backend_of(target).runs_float or not regions:
        return
    node = regions[0].nodes[0]
    op, why = (node.op_type, f" ({node.reason})") if isinstance(node, FloatOp) else (node.op, "")
    raise ModelError(
        f"node {node.name} ({op}) runs in float{why}, which is not compiled for devices of kind {target.kind} yet: "
        "quantize it, or compile for a CPU"
    )


def build(
    functions: Mapping[str, PrimFunc],
    target: Target,
    folder: Path,
    instruments: Sequence[object] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Phase 7: object files in `folder`, in which each function has its name. `instruments` see TVM's passes, from
    several threads."""
    progress(f"generating code for {len(functions)} functions")
    return backend_of(target).build_objects(functions, target, folder, instruments)


def link(objects: Sequence[Path], target: Target) -> bytes:
    """Phase 8: lib.so, which runs with TVM's runtime alone. It is made beside the object files. Raises TargetError where
    linking fails."""
    return backend_of(target).link_objects(objects, target)
