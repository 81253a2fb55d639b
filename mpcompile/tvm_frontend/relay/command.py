"""What another environment asks of the one with Relay: `python -m mpcompile.tvm_frontend.relay.command`.

    onnx  MODULE.json|MODEL.onnx [--params P.bin] -o OUT.onnx    the whole module, for mpcompile's frontend
    build MODULE.json|MODEL.onnx [--params P.bin] --target T -o OUT.so    through Relay and BitSerialize, to TVM's library

The last line that it prints is JSON: {"said": lines} or {"error": …, "kind": …}.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TOPHUB_LOCATION", "NONE")  # TVM would download schedules for its own kernels

import onnx
import tvm
from tvm import relay

from mpcompile.errors import ModelError, MpError, UsageError
from mpcompile.targets import Target, load_target
from mpcompile.tvm_frontend.dataflow import NotMatched
from mpcompile.tvm_frontend.link import linker_for
from mpcompile.tvm_frontend.relay.bit_serialize import BitSerialize
from mpcompile.tvm_frontend.relay.importer import from_onnx
from mpcompile.tvm_frontend.relay.read import dataflow_of
from mpcompile.tvm_frontend.whole import whole_model


def read(path: Path, params: Path | None, shapes: dict[str, list[int]]) -> tvm.IRModule:
    """A module from an ONNX file, or as tvm.ir.save_json wrote it, with its parameters bound and types inferred. Raises
    ModelError, UsageError."""
    for file in (path, *([params] if params else [])):
        if not file.is_file():
            raise UsageError(f"there is no file {file}")
    if path.suffix == ".onnx":
        model = onnx.load(path)
        held = {i.name for i in model.graph.initializer}
        fixed = {i.name: [1, *_sizes(i)[1:]] for i in model.graph.input if i.name not in held} | shapes
        try:
            return relay.transform.InferType()(from_onnx(model, fixed)[0])
        except (tvm.TVMError, tvm.error.OpNotImplemented, AssertionError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: Relay does not read it: {last_line(error)}") from error
    try:
        mod = tvm.ir.load_json(path.read_text(encoding="utf-8"))
        if not isinstance(mod, tvm.IRModule):
            raise ValueError(f"it holds a {type(mod).__name__}")
        if not isinstance(mod["main"], relay.Function):
            raise ValueError(f"its main is a {type(mod['main']).__module__}.{type(mod['main']).__name__}")
        if params:
            bound = relay.build_module.bind_params_by_name(mod["main"], relay.load_param_dict(params.read_bytes()))
            mod.update_func(mod.get_global_var("main"), bound)
        return relay.transform.InferType()(mod)
    except (tvm.TVMError, AttributeError, LookupError, TypeError, ValueError) as error:  # at damaged files, too
        raise ModelError(f"{path} is no module of Relay in TVM {tvm.__version__}: {last_line(error)}") from error


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


def last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def to_onnx(mod: tvm.IRModule) -> onnx.ModelProto:
    """The module's main function. Raises ModelError."""
    try:
        flow, values = dataflow_of(mod["main"], "main")
    except NotMatched as reason:
        raise ModelError(f"main: {reason}") from None
    return whole_model(flow, {p.name_hint: values[p][0] for p in mod["main"].params})


def build(mod: tvm.IRModule, target: str, records: str | None, output: Path, said: list[str]) -> None:
    """TVM's library for the graph executor, with the regions' code in it. Raises TargetError where it does not link."""
    board = load_target(target)
    new = BitSerialize(target, records=records, explain=True, say=said.append)(mod)
    with tvm.transform.PassContext(opt_level=3):
        library = relay.build(new, target=tvm.target.Target(tvm_target(board)))
    library.export_library(str(output), fcompile=linker_for(board))


def tvm_target(board: Target) -> dict:
    """What TVM 0.19's own kernels are compiled for."""
    found: dict = {"kind": "llvm", "mcpu": board.mcpu}
    return (
        found
        | ({"mattr": list(board.mattr)} if board.mattr else {})
        | ({"mtriple": board.mtriple} if board.mtriple else {})
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mpcompile.tvm_frontend.relay.command", description=__doc__)
    parser.add_argument("what", choices=("onnx", "build"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--params", type=Path)
    parser.add_argument("--shapes", type=json.loads, default={})
    parser.add_argument("--target", default="native")
    parser.add_argument("--records")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    said: list[str] = []
    try:
        with contextlib.redirect_stdout(sys.stderr):
            mod = read(args.model, args.params, args.shapes)
            if args.what == "onnx":
                args.output.write_bytes(to_onnx(mod).SerializeToString())
            else:
                build(mod, args.target, args.records, args.output, said)
    except MpError as error:
        print(json.dumps({"error": str(error), "kind": type(error).__name__}))
        return error.exit_code
    print(json.dumps({"said": said}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
