"""A model through TVM's Relay or Relax to a library of TVM's: what `mpcompile compile --ir` does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpcompile.errors import UsageError
from mpcompile.files import atomic_path, check_writable
from mpcompile.targets import load_target
from mpcompile.tvm_frontend.child import ask, relay_python
from mpcompile.tvm_frontend.module_file import COMMAND


def compile_through(
    ir: str,
    model: str,
    target: str,
    output: str | None,
    params: str | None,
    shapes: Mapping[str, Sequence[int]],
    records: str | None,
) -> tuple[Path, list[str]]:
    """Writes the library, beside the model with the suffix .so where `output` is None; its path, and what BitSerialize
    said.

    ir: "relay" (graph executor of TVM 0.19) or "relax" (VirtualMachine of today's). model: an ONNX file, or a module of
    that IR (.json). Nothing is left behind where it fails.
    Raises UsageError, ModelError, TargetError, MissingDependency, each with one line.
    """
    path = Path(output) if output else Path(model).with_suffix(".so")
    check_writable(path)
    if not Path(model).is_file():
        raise UsageError(f"there is no file {model}")
    load_target(target)
    with atomic_path(path) as made:
        if ir == "relay":
            given = ["--shapes", json.dumps({k: list(v) for k, v in shapes.items()}), "--target", _absolute(target)]
            given += ["--params", os.path.abspath(params)] if params else []
            given += ["--records", os.path.abspath(records)] if records else []
            said = ask(relay_python(), COMMAND, ["build", os.path.abspath(model), *given, "-o", str(made)])["said"]
        else:
            from mpcompile.tvm_frontend.relax.through import build

            said = build(Path(model), params, target, shapes, records, Path(made))
    return path, said


def _absolute(target: str) -> str:
    return os.path.abspath(target) if target.endswith(".toml") else target
