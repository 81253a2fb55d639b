"""A TVM module in a file, as JSON, for the verbs that read models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpcompile.errors import ModelError, UsageError
from mpcompile.temporary import temporary_folder
from mpcompile.tvm_frontend.child import ask, relay_python

COMMAND = "mpcompile.tvm_frontend.relay.command"


@contextmanager
def as_onnx(model: str | os.PathLike, params: str | os.PathLike | None) -> Iterator[str | os.PathLike]:
    """The path of an ONNX model: `model` itself, or for a module that tvm.ir.save_json wrote (MODULE.json) one that is
    there while the block runs. `params`: what relay.save_param_dict, or tvm.runtime.save_param_dict, gave.

    Raises UsageError, ModelError (one line that names the operator which has no form here), MissingDependency where a
    module of Relay finds no TVM that has it.
    """
    path = Path(model)
    if path.suffix != ".json":
        if params:
            raise UsageError(f"--params is of a module (.json); {path} has its parameters in it")
        yield model
        return
    with temporary_folder() as folder:
        made = folder / f"{path.stem}.onnx"
        if is_relay(path):
            arguments = ["onnx", str(path.resolve()), *(["--params", os.path.abspath(params)] if params else [])]
            ask(relay_python(), COMMAND, [*arguments, "-o", str(made)])
        else:
            from mpcompile.tvm_frontend.relax.module_file import onnx_of

            made.write_bytes(onnx_of(path, Path(params) if params else None))
        yield made


def is_relay(path: Path) -> bool:
    """Whether it is the JSON of a TVM that has Relay. Raises UsageError, ModelError where it is none of a TVM's."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON, and so no module that tvm.ir.save_json wrote ({error})") from error
    if isinstance(held, dict) and "b64ndarrays" in held and "nodes" in held:
        return True
    if isinstance(held, dict) and "root_index" in held:
        return False
    raise ModelError(f"{path} is no module that tvm.ir.save_json wrote")
