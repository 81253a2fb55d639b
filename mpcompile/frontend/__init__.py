"""QONNX, ONNX QDQ/QCDQ → the normalised graph. No TVM here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mpcompile.errors import MissingDependency
from mpcompile.ir.graph import Graph

if TYPE_CHECKING:
    from mpcompile.frontend.names import SourceFile


def load(path: str | Path) -> Graph:
    """Reads an ONNX file: QONNX, or standard ONNX with QuantizeLinear / DequantizeLinear. Tensors lose their batch
    axis.

    Raises UsageError where there is no such file, ModelError (one line that names node and operator) at what is damaged
    or cannot be compiled, MissingDependency where onnx or onnx-ir is not installed.
    """
    return load_source(path).graph


def load_source(path: str | Path) -> SourceFile:
    """The same, with the names that its tensors have in the file. Raises as `load`."""
    try:
        from mpcompile.frontend import source
    except ModuleNotFoundError as missing:
        if missing.name not in ("onnx", "onnx_ir"):
            raise
        raise MissingDependency(
            f'reading a model needs {missing.name.replace("_", "-")}: pip install "mpcompile[compile]"'
        ) from missing
    return source.read(Path(path))
