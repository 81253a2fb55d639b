"""Every pass from a model to a bundle's contents, in phases and in order.

    1 import      file → Graph of real-valued operators                                  (frontend)
    2 layers      reshapes and pools sink, concats split, operators fuse → Layer nodes   (passes/to_layers.py)
    3 formats     a family for each contraction, stored forms for each tensor            (passes/choose_formats.py)
    4 emit        Graph → Relax: mpcompile.layer and TVM's own operators                 (emit.py)
    5 float       TVM's operators → fused, scheduled PrimFuncs                           (passes/legalize_float.py)
    6 kernels     mpcompile.layer → scheduled PrimFuncs, packed weights                  (passes/legalize_layers.py)
    7 plan        offsets of all buffers, the block of weights, the list of calls        (passes/plan_memory.py)
    8 library     PrimFuncs → machine code in lib.so                                     (library.py)

With a folder to dump into, each phase leaves what it made there as text: 01-import.txt, 02-layers-sink_reshapes.txt, …
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpcompile.compiler.emit import Emit
from mpcompile.compiler.library import build_library
from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.choose_formats import Allowed, Assignment, ChooseFormats, allowed_by
from mpcompile.compiler.passes.legalize_float import LegalizeFloat
from mpcompile.compiler.passes.legalize_layers import LegalizeLayers
from mpcompile.compiler.passes.plan_memory import PlanMemory
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.compiler.print_graph import graph_text
from mpcompile.errors import UsageError
from mpcompile.ir.graph import Graph
from mpcompile.ir.plan import Plan
from mpcompile.kernels.layer import Lowered, Tiles
from mpcompile.kernels.tvm_names import Target as TvmTarget
from mpcompile.targets import Target


@dataclass(frozen=True)
class Options:
    """`families`: layer → family ("*": every layer that can have it), instead of the cheapest by the cost model;
    `allowed`: the families that a contraction may have, as choose_formats has it. `tiles`: layer → the schedule's tile;
    `tuned` chooses those of the others, which have their default without it. `progress` hears what is being done, one
    short line at a time. `build` makes machine code of the functions and TVM's dict of the target: lib.so, or what else
    is wanted."""

    families: Mapping[str, str] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=dict)
    tiles: Mapping[str, object] = field(default_factory=dict)
    tuned: Tiles | None = None
    dump: Path | None = None
    progress: Callable[[str], None] = lambda line: None
    build: Callable[[Mapping[str, object], dict], bytes] = build_library


@dataclass(frozen=True)
class Compiled:
    """What goes into a bundle, and the graph of layers that it was made from."""

    graph: Graph
    assignment: Assignment
    lowered: Mapping[str, Lowered]
    plan: Plan
    library: bytes
    weights: bytes


def run(source: Graph, target: Target, options: Options = Options()) -> Compiled:
    """A normalised graph (phase 1 is the frontend's) to everything that a bundle holds. Raises MpError's subclasses."""
    dump, say = _Dump(options.dump), options.progress
    tvm_target = target.tvm_dict()
    dump("import", lambda: graph_text(source))

    say("fusing operators into layers")
    graph = apply_all(source, TO_LAYERS, lambda p, g: dump(f"layers-{p.name}", lambda: graph_text(g)))

    say("choosing kernel families and formats")
    allowed = {**options.allowed, **allowed_by(options.families, graph, target)}
    assignment = ChooseFormats(target, allowed).apply(graph)
    dump("formats", lambda: graph_text(graph, assignment.buffers, assignment.families))

    emitted = Emit(assignment.buffers, assignment.families).apply(graph)
    dump("emit", emitted.mod.script)

    emitted = LegalizeFloat(TvmTarget(tvm_target)).apply(emitted)
    dump("float", emitted.mod.script)

    legalize = LegalizeLayers(graph, assignment.families, target, options.tiles, say, options.tuned)
    emitted, lowered = legalize.apply(emitted)
    dump("kernels", emitted.mod.script)

    planned = PlanMemory(graph).apply(emitted)
    dump("plan", lambda: json.dumps(planned.plan.to_json(), indent=1))

    say(f"generating code for {len(planned.functions)} functions")
    library = options.build(planned.functions, tvm_target)
    return Compiled(graph, assignment, lowered, planned.plan, library, planned.weights)


class _Dump:
    """Writes numbered text files; without a folder it does nothing, and what would be printed is not made."""

    def __init__(self, folder: Path | None):
        self.folder, self.count = folder, 0
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                for old in folder.glob("[0-9][0-9]-*.txt"):  # of an earlier run, which may have had more phases
                    old.unlink()
            except OSError as error:
                raise UsageError(f"cannot dump into {folder}: {error.strerror}") from error

    def __call__(self, phase: str, text: Callable[[], str]) -> None:
        if self.folder is not None:
            self.count += 1
            path = self.folder / f"{self.count:02}-{phase}.txt"
            found = text()
            try:
                path.write_text(found)
            except OSError as error:
                raise UsageError(f"cannot write {path}: {error.strerror}") from error
