"""QONNX, ONNX QDQ/QCDQ → the normalised graph. No TVM here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile.errors import MissingDependency, UsageError
from mpcompile.ir.graph import Graph

if TYPE_CHECKING:
    from mpcompile.frontend.names import SourceFile


def load(path: str | os.PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """Reads an ONNX file: QONNX, or standard ONNX with QuantizeLinear / DequantizeLinear. Tensors lose their batch
    axis. `shapes`: input → its shape, batch in front, where the file leaves sizes open.

    Raises UsageError where there is no such file, or shapes do not fit it, ModelError (one line that names node and
    operator) at what is damaged or cannot be compiled, MissingDependency where onnx or onnx-ir is not installed.
    """
    return load_source(path, shapes).graph


def load_source(path: str | os.PathLike, shapes: Mapping[str, Sequence[int]] | None = None) -> SourceFile:
    """The same, with the names that its tensors have in the file. Raises as `load`."""
    try:
        from mpcompile.frontend import source
    except ModuleNotFoundError as missing:
        if missing.name not in ("onnx", "onnx_ir"):
            raise
        raise MissingDependency(
            f'reading a model needs {missing.name.replace("_", "-")}: pip install "mpcompile[compile]"'
        ) from missing
    return source.read(Path(path), shapes or {})


def graph_of(model: str | os.PathLike | Graph, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """A Graph as it is, a file by `load`. Raises UsageError at shapes for a Graph."""
    if not isinstance(model, Graph):
        return load(model, shapes)
    if shapes:
        raise UsageError(f"shapes are of a file; the graph's inputs have theirs: {', '.join(shapes)}")
    return model
