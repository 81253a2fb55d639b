"""compile_model: a model to a bundle file. What `mpcompile compile` and `mpcompile.compile` call."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mpcompile.api.float_operators import require_quantized as check_quantized
from mpcompile.compiler import pipeline
from mpcompile.compiler.manifest import layer_rows
from mpcompile.compiler.passes.choose_formats import Allowed
from mpcompile.errors import UsageError
from mpcompile.files import check_writable
from mpcompile.frontend import graph_of
from mpcompile.ir.graph import Graph
from mpcompile.kernels.architecture import Tile
from mpcompile.records.choose import TunedTiles
from mpcompile.records.store import records_for
from mpcompile.runtime.variants import CompiledVariant, write_bundle
from mpcompile.targets import Fleet, Target, load_fleet
from mpcompile.temporary import temporary_folder


def compile_model(
    model: str | os.PathLike | Graph,
    target: str | os.PathLike | Target | Fleet = "native",
    output: str | os.PathLike | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dump_ir: str | os.PathLike | None = None,
    families: Mapping[str, str] | None = None,
    allowed: Allowed | None = None,
    tiles: Mapping[str, Tile] | None = None,
    records: str | os.PathLike | None = None,
    require_quantized: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Compiles `model` for `target` and writes the bundle; its path.

    model: an ONNX file (QONNX or QDQ), or a normalised Graph. target: "native", a board's or a fleet's name, a TOML's
    path, a Target or a Fleet: the bundle holds a variant for each board of a fleet. output: where the bundle goes;
    without it, beside the model, with the suffix .mpc. shapes: input → its shape, batch in front, where the file leaves
    sizes open. dump_ir: a folder for the text of every phase, a folder in it for each board of a fleet. families: layer →
    kernel family ("*": all that can have it); allowed: layer → (term, part) → the families to choose from; tiles: layer →
    tile; both for one board only. records: a folder that `tune` wrote, whose tiles win over those that ship; "none":
    neither, every schedule as set by hand. require_quantized: refuse a model of which an operator would run in float.
    Nothing is left behind where it fails.
    Raises UsageError, ModelError, TargetError, MissingDependency, each with one line.
    """
    path = _output(model, output)
    fleet = (
        target if isinstance(target, Fleet) else Fleet.of(target) if isinstance(target, Target) else load_fleet(target)
    )
    if len(fleet.boards) > 1 and (allowed or tiles):
        raise UsageError(f"target {fleet.name} stands for several boards: tiles and allowed families are of one")
    say = progress or (lambda line: None)
    if not isinstance(model, Graph):
        say(f"reading {model}")
    graph = graph_of(model, shapes)
    if require_quantized:
        check_quantized(graph)
    dump = Path(dump_ir) if dump_ir is not None else None
    options = [
        pipeline.Options(families or {}, allowed or {}, tiles or {}, TunedTiles(records_for(board, records)), dump, say)
        for board in fleet.boards
    ]
    variants = [_variant(graph, board, fleet, o) for board, o in zip(fleet.boards, options)]
    say(f"writing {path}")
    return write_bundle(path, {"target": fleet.to_json(), "model": _about(graph)}, variants)


def _variant(graph: Graph, board: Target, fleet: Fleet, options: pipeline.Options) -> CompiledVariant:
    if len(fleet.boards) > 1:
        say = options.progress
        options = replace(
            options, dump=options.dump and options.dump / board.name, progress=lambda line: say(f"{board.name}: {line}")
        )
    planned = pipeline.plan(graph, board, options)
    with temporary_folder() as folder:
        objects = pipeline.build(planned.functions, board, folder, progress=options.progress)
        library = pipeline.link(objects, board)
    return CompiledVariant(board.to_json(), planned.plan, layer_rows(planned), library, planned.weights)


def _output(model: str | os.PathLike | Graph, output: str | os.PathLike | None) -> Path:
    if output is None:
        if isinstance(model, Graph):
            raise UsageError("say where the bundle of a graph goes: pass output")
        output = Path(model).with_suffix(".mpc")
    if not isinstance(model, Graph) and os.path.realpath(model) == os.path.realpath(output):
        raise UsageError(f"cannot write {output}: it is the model itself")
    check_writable(output)
    return Path(output)


def _about(graph: Graph) -> dict:
    return {"source": Path(graph.source).name, "batch": graph.batch, "inputs": graph.inputs, "outputs": graph.outputs}
