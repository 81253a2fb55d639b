"""A region's ONNX model to an object file with one function, which a TVM can link and call.

In this process where TVM is ours; `python -m mpcompile.tvm_frontend.build MODEL.onnx …` is the same for a process that has
an older TVM: files cross, and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mpcompile.api.export_c import export_c
from mpcompile.compiler.c_export.build import WARNINGS, Tools, include_flags
from mpcompile.compiler.c_export.localize import localize
from mpcompile.compiler.linker import run_tool
from mpcompile.errors import MpError
from mpcompile.frontend import load
from mpcompile.targets import Target, load_target
from mpcompile.temporary import temporary_folder
from mpcompile.tvm_frontend.glue import INTERFACES, glue


@dataclass(frozen=True)
class Built:
    """`object`: the file; `layers`: its rows, as api.export_c gives them."""

    object: Path
    layers: list[dict]


def build_region(
    model: Path,
    target: str | os.PathLike | Target,
    symbol: str,
    interface: str,
    output: Path,
    records: str | None = None,
) -> Built:
    """Compiles `model` for a board and writes `output`, an object file for it.

    symbol: what TVM calls the function; interface: one of INTERFACES. records: as compile_model has it.
    Raises UsageError, ModelError, TargetError, MissingDependency, each with one line.
    """
    board = target if isinstance(target, Target) else load_target(target)
    graph = load(model)
    sizes = [_numbers(graph.types[port].shape) for port in (*graph.inputs, *graph.outputs)]
    library = symbol.lower()
    with temporary_folder() as folder:
        made = export_c(graph, board, folder / "c", name=library, records=records)
        tools = Tools.find(board.arch, f"linking into a TVM module for {board.name}")
        (folder / "glue.c").write_text(
            glue(library, symbol, sizes, len(graph.inputs), graph.batch, interface), encoding="utf-8"
        )
        glued = tools.compile(folder / "glue.c", folder / "glue.o", [*WARNINGS, *include_flags(), f"-I{folder / 'c'}"])
        whole = folder / "region.o"
        archive = ["-Wl,--whole-archive", folder / "c" / f"lib{library}.a", "-Wl,--no-whole-archive"]
        run_tool([*tools.cc, "-r", "-nostdlib", "-o", whole, glued, *archive], folder, "did not link the region")
        localize(whole, [INTERFACES[interface] + symbol])
        output.write_bytes(whole.read_bytes())
    return Built(output, made.layers)


def _numbers(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def main() -> int:
    """The command; its one line of JSON is {"layers": …} or {"error": …, "exit_code": …}."""
    parser = argparse.ArgumentParser(prog="python -m mpcompile.tvm_frontend.build", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", required=True)
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--interface", choices=sorted(INTERFACES), required=True)
    parser.add_argument("--records")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        built = build_region(args.model, args.target, args.symbol, args.interface, args.output, args.records)
    except MpError as error:
        print(json.dumps({"error": str(error), "exit_code": error.exit_code, "kind": type(error).__name__}))
        return error.exit_code
    print(json.dumps({"layers": built.layers}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
