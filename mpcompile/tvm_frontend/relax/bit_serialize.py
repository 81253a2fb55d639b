"""The pass: quantized regions of a Relax module become calls of compiled bit-serial kernels, linked with the module."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from mpcompile.errors import UsageError
from mpcompile.targets import Target, load_target
from mpcompile.temporary import temporary_folder
from mpcompile.tvm_frontend.build import build_region
from mpcompile.tvm_frontend.dataflow import NotMatched
from mpcompile.tvm_frontend.fake_quantize import merge
from mpcompile.tvm_frontend.regions import find_regions
from mpcompile.tvm_frontend.relax.read import dataflow_of
from mpcompile.tvm_frontend.relax.rewrite import with_regions
from mpcompile.tvm_frontend.report import Report


class BitSerialize:
    """A pass over Relax modules, which any pipeline can call: `mod = BitSerialize("native")(mod)`.

    Before: a module as a frontend made it, parameters bound, not legalized. After: each quantized region of its functions
    is one `call_dps_packed` of a function in a static library, which hangs on the module (attribute "external_mods") and
    which tvm.compile links; everything else is as it was.

    target: "native", a board's name, a TOML's path, or a Target, as mpcompile.compile has it; TVM's own target, for the
    rest of the module, is given to tvm.compile. records: a folder that `tune` wrote. explain: also say of each operator
    that stayed why it did. say: hears each line of what was rewritten; None: nobody.
    Raises TargetError, UsageError, MissingDependency with one line; the module that was given is never changed.
    """

    def __init__(
        self,
        target: str | os.PathLike | Target = "native",
        *,
        records: str | None = None,
        explain: bool = False,
        say: Callable[[str], None] | None = print,
    ):
        self.board = target if isinstance(target, Target) else load_target(target)
        self.records, self.report = records, Report(say, explain)

    def __call__(self, mod: Any) -> Any:
        if not issubclass(type(mod), tvm.IRModule):  # narrows no type: TVM's has attributes that its annotations lack
            raise UsageError(f"BitSerialize takes a module of Relax (tvm.IRModule), not a {type(mod).__name__}")
        before = list((mod.attrs or {}).get("external_mods", []))
        libraries, new = list(before), mod.clone()

        def taken(symbol: str) -> bool:
            return any(library.implements_function(symbol) for library in libraries)

        for variable, function in mod.functions_items():
            if not isinstance(function, relax.Function) or (function.attrs and "Codegen" in function.attrs):
                continue
            name = variable.name_hint
            try:
                flow, values = dataflow_of(mod, function, name)
            except NotMatched as reason:
                self.report.unread(name, reason)
                continue
            merge(flow)
            found = find_regions(flow, f"{self.board}\n{self.records or ''}", taken)
            layers: dict[str, list[dict]] = {}
            with temporary_folder() as folder:
                for region in found.regions:
                    model, built = folder / f"{region.name}.onnx", folder / f"{region.name}.o"
                    model.write_bytes(region.model)
                    layers[region.name] = build_region(
                        model, self.board, region.name, "tvm_ffi", built, self.records
                    ).layers
                    libraries.append(tvm.runtime.load_static_library(str(built), [region.name]))
            self.report.done(name, found, layers)
            if found.regions:
                new.update_func(new.get_global_var(name), with_regions(function, values, found.regions))
        if len(libraries) > len(before):
            new = relax.transform.Normalize()(new.with_attr("external_mods", libraries))
        return new
