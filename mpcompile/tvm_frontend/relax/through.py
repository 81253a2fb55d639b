"""A model through Relax and BitSerialize to a library for Relax's VirtualMachine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import tvm

from mpcompile.compiler.backend import backend_of
from mpcompile.errors import ModelError
from mpcompile.targets import load_target
from mpcompile.tvm_frontend.link import linker_for
from mpcompile.tvm_frontend.relax.bit_serialize import BitSerialize
from mpcompile.tvm_frontend.relax.importer import from_onnx
from mpcompile.tvm_frontend.relax.module_file import load_module


def build(
    model: Path,
    params: str | None,
    target: str,
    shapes: Mapping[str, Sequence[int]],
    records: str | None,
    output: Path,
) -> list[str]:
    """Writes `output`; what the pass said. Raises ModelError, TargetError, UsageError."""
    board, said = load_target(target), []
    mod = read(model, params, shapes)
    new = BitSerialize(board, records=records, explain=True, say=said.append)(mod)
    compiled = tvm.compile(new, target=tvm.target.Target(backend_of(board).tvm_dict(board, board.cores)))
    compiled.export_library(str(output), fcompile=linker_for(board))
    return said


def read(model: Path, params: str | None, shapes: Mapping[str, Sequence[int]]) -> tvm.IRModule:
    """The module of an ONNX file, batch 1 where it is open, or of a JSON file."""
    if model.suffix != ".onnx":
        return load_module(model, Path(params) if params else None)
    proto = onnx.load(model)
    held = {i.name for i in proto.graph.initializer}
    fixed = {
        i.name: [d.dim_value or 1 for d in i.type.tensor_type.shape.dim]
        for i in proto.graph.input
        if i.name not in held
    }
    try:
        return from_onnx(proto, shape_dict=fixed | {k: list(v) for k, v in shapes.items()}, keep_params_in_input=False)
    except Exception as error:  # whatever its converters raise
        words = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise ModelError(f"{model}: Relax does not read it: {words}") from error
