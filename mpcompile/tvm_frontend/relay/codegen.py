"""What Relay calls for each of our external functions: its machine code."""

from __future__ import annotations

import hashlib

import tvm

from mpcompile.temporary import temporary_folder
from mpcompile.tvm_frontend.child import build_region
from mpcompile.tvm_frontend.relay.operators import region_of

_built: dict[tuple[str, str, str, str], tuple[bytes, list[dict]]] = {}
"""(sha256 of the model, target, records, symbol) → object file and layers: what the pass built, relay.build need not build
again."""


def built(model: bytes, target: str, symbol: str, records: str) -> tuple[bytes, list[dict]]:
    """A region's object file and its layers. records: a folder, or "" for those that ship."""
    key = (hashlib.sha256(model).hexdigest(), target, records, symbol)
    if key not in _built:
        with temporary_folder() as folder:
            file, output = folder / f"{symbol}.onnx", folder / f"{symbol}.o"
            file.write_bytes(model)
            layers = build_region(file, target, symbol, "packed", output, records or None)
            _built[key] = output.read_bytes(), layers
    return _built[key]


@tvm.register_func("relay.ext.mpcompile")
def codegen(function):
    """Relay's hook: the module of a function with Compiler="mpcompile"."""
    symbol = str(function.attrs["global_symbol"])
    model, target, records = region_of(function)
    made, _ = built(model, target, symbol, records)
    with temporary_folder() as folder:
        (folder / f"{symbol}.o").write_bytes(made)
        return tvm.runtime.load_static_library(str(folder / f"{symbol}.o"), [symbol])


@tvm.register_func("relay.ext.mpcompile.constant_updater")
def constants(function, symbol):
    """None: the weights are in the object file."""
    return {}
