"""export_c: a model to a static library, a header, an example and a CMake file. What `compile --format c` calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from mpcompile import __version__
from mpcompile.api.float_operators import require_quantized as check_quantized
from mpcompile.compiler import pipeline
from mpcompile.compiler.backend import backend_of
from mpcompile.compiler.c_export import source
from mpcompile.compiler.c_export.build import WARNINGS, Tools, include_flags
from mpcompile.compiler.c_export.cuda.source import CudaExport
from mpcompile.compiler.manifest import layer_rows
from mpcompile.compiler.scratch import MeasureScratch
from mpcompile.errors import TargetError, UsageError
from mpcompile.files import atomic_path, output_folder
from mpcompile.frontend import graph_of
from mpcompile.ir.graph import Graph
from mpcompile.records.choose import TunedTiles
from mpcompile.records.store import records_for
from mpcompile.runtime.cuda.code import CudaCode
from mpcompile.targets import Target, load_target
from mpcompile.temporary import temporary_folder

EXAMPLE, CMAKE = "example.c", "CMakeLists.txt"


@dataclass(frozen=True)
class Exported:
    """`files` lie in `folder`; bytes of the workspace for one task, and of what each task more needs. `layers`: a row for
    each, as a bundle's manifest has them, with `inputs`: tensors that it reads; of each output also its `shape`, without
    batch, as the source has it."""

    folder: Path
    name: str
    files: tuple[str, ...]
    workspace_bytes: int
    task_bytes: int
    weights_bytes: int
    layers: list[dict] = field(default_factory=list)

    def to_json(self) -> dict:
        return vars(self) | {"folder": str(self.folder), "files": list(self.files)}


def export_c(
    model: str | os.PathLike | Graph,
    target: str | os.PathLike | Target = "native",
    folder: str | os.PathLike | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    name: str | None = None,
    families: Mapping[str, str] | None = None,
    records: str | os.PathLike | None = None,
    require_quantized: bool = False,
    flags: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Exported:
    """Writes libNAME.a, NAME.h, example.c and CMakeLists.txt into `folder`; it is made where it is not there. For a CUDA
    device NAME.c and NAME.bin are in the library's place, which the board's own compiler takes.

    Everything public is called NAME_…, all else is local to the library, so that several fit into one program. name:
    what the symbols begin with; without it, from the model's file. shapes, families, records, require_quantized: as
    compile_model has them. flags: of the C compiler, for the library's own C (sanitizers, say). Nothing in `folder` is
    replaced before all is made.
    Raises UsageError, ModelError, TargetError, MissingDependency, each with one line.
    """
    board = target if isinstance(target, Target) else load_target(target)
    backend = backend_of(board)
    if not backend.exports_c and board.kind != "cuda":
        raise TargetError(f"target {board.name}: there is no C library for a {board.kind}: compile a bundle for it")
    graph = graph_of(model, shapes)
    if require_quantized:
        check_quantized(graph)
    name = source.check_name(name) if name else source.identifier(Path(graph.source).stem)
    say = progress or (lambda line: None)
    options = pipeline.Options(families or {}, tuned=TunedTiles(records_for(board, records)), progress=say)
    if board.kind == "cuda":
        return _export_cuda(graph, board, Path(folder if folder is not None else name), name, options)
    tools = Tools.find(board.arch, f"a C library for {board.name}")
    with (
        output_folder(folder if folder is not None else name, parents=False) as folder,
        temporary_folder() as made,
    ):
        _check_folder(folder)
        planned = pipeline.plan(graph, board, options)
        scratch = MeasureScratch()
        objects = pipeline.build(planned.functions, board, made, [scratch], say)
        export = source.Export(
            name, planned.plan, board, scratch.bytes, scratch.stack, Path(graph.source).name, __version__
        )
        say(f"making lib{name}.a")
        (made / "weights.bin").write_bytes(planned.weights)
        texts = {
            f"{name}.h": source.header(export),
            EXAMPLE: source.example(export),
            CMAKE: source.cmake(export),
            "table.c": source.table_c(export),
            "weights.s": source.weights_s(export, str(made / "weights.bin"), board.arch),
        }
        for file, text in texts.items():
            (made / file).write_text(text, encoding="utf-8")
        include = [*WARNINGS, *include_flags(), f"-I{made}", *flags]
        objects += [
            tools.compile(made / "table.c", made / "table.o", include),
            tools.compile(Path(source.__file__).with_name("runtime.c"), made / "runtime.o", include),
            tools.compile(made / "weights.s", made / "weights.o"),
        ]
        public = [f"{name}_{function}" for function in ("run", "run_parallel", "error")]
        tools.archive(objects, public, made / f"lib{name}.a")
        files = (f"lib{name}.a", f"{name}.h", EXAMPLE, CMAKE)
        _put(made, folder, files)
    return Exported(
        folder,
        name,
        files,
        export.base_bytes + export.scratch_bytes,
        export.scratch_bytes,
        len(planned.weights),
        _rows(planned),
    )


def _export_cuda(graph: Graph, board: Target, folder: Path, name: str, options: pipeline.Options) -> Exported:
    with output_folder(folder, parents=False) as folder, temporary_folder() as made:
        _check_folder(folder)
        planned = pipeline.plan(graph, board, options)
        library = pipeline.link(pipeline.build(planned.functions, board, made, progress=options.progress), board)
        code, source_name = CudaCode.from_bytes(library), Path(graph.source).name
        export = CudaExport(name, planned.plan, code, planned.weights, board.name, source_name, __version__)
        files = export.files()
        for file, data in files.items():
            (made / file).write_bytes(data)
        _put(made, folder, tuple(files))
    return Exported(folder, name, tuple(files), export.device_bytes, 0, len(planned.weights), _rows(planned))


def _check_folder(folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into {folder}: no permission")


def _rows(planned: pipeline.Planned) -> list[dict]:
    types = planned.graph.types
    return [
        row
        | {"inputs": list(node.inputs)}
        | {"outputs": [out | {"shape": list(types[out["tensor"]].shape)} for out in row["outputs"]]}
        for row, node in zip(layer_rows(planned), planned.graph.nodes)
    ]


def _put(made: Path, folder: Path, files: Sequence[str]) -> None:
    """All of them or none: each is on the disk before the first gets its name."""
    with ExitStack() as stack:
        for file in files:
            stack.enter_context(atomic_path(folder / file)).write_bytes((made / file).read_bytes())
