"""A Relax module, as tvm.ir.save_json wrote it, as an ONNX model."""

from __future__ import annotations

from pathlib import Path

import tvm
from tvm import relax

from mpcompile.errors import ModelError, UsageError
from mpcompile.tvm_frontend.dataflow import NotMatched, Value
from mpcompile.tvm_frontend.relax import operators  # noqa: F401  (a module may have mpcompile.int_quant in it)
from mpcompile.tvm_frontend.relax.read import dataflow_of
from mpcompile.tvm_frontend.whole import whole_model


def load_module(path: Path, params: Path | None) -> tvm.IRModule:
    """With a function main, its parameters bound. Raises ModelError, UsageError."""
    try:
        mod = tvm.ir.load_json(path.read_text(encoding="utf-8"))
    except Exception as error:  # of C++, of many kinds
        raise ModelError(f"{path} is no module of TVM {tvm.__version__}: {_last_line(error)}") from error
    if not isinstance(mod, tvm.IRModule) or "main" not in [v.name_hint for v in mod.get_global_vars()]:
        raise ModelError(f"{path} holds no module with a function main")
    if params is None:
        return mod
    if not params.is_file():
        raise UsageError(f"there is no file {params}")
    try:
        return relax.transform.BindParams("main", dict(tvm.runtime.load_param_dict(params.read_bytes()).items()))(mod)
    except Exception as error:
        raise ModelError(f"{params} holds no parameters of {path}: {_last_line(error)}") from error


def onnx_of(path: Path, params: Path | None) -> bytes:
    """The function main, whole. Raises ModelError, UsageError."""
    mod = load_module(path, params)
    try:
        flow, values = dataflow_of(mod, mod["main"], "main")
    except NotMatched as reason:
        raise ModelError(f"{path}: main: {reason}") from None
    inputs = {p.name: held for p in mod["main"].params if isinstance(held := values.get(p), Value)}
    if len(inputs) != len(mod["main"].params):
        raise ModelError(f"{path}: main has a parameter that is no tensor; tensors would be accepted")
    return whole_model(flow, inputs).SerializeToString()


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
