"""TVM's own operators to PrimFuncs, fused where TVM can, with a plain CPU schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import tvm
from tvm import relax

from mpcompile.compiler.emit import Emitted
from mpcompile.compiler.relax_ops import LAYER, VIEWS
from mpcompile.compiler.schedule_float import schedule
from mpcompile.kernels.tvm_names import tirx


@dataclass(frozen=True)
class LegalizeFloat:
    """Before: `main` calls mpcompile.layer and TVM's operators. After: mpcompile.layer, views, and
    call_tir of scheduled PrimFuncs.

    What no later binding reads is gone. A module without TVM's operators comes back as it is.
    """

    target: tvm.target.Target

    def apply(self, emitted: Emitted) -> Emitted:
        if not any(_is_float(b.value) for block in emitted.mod["main"].body.blocks for b in block.bindings):
            return emitted
        with self.target, tvm.transform.PassContext(opt_level=3):
            mod = tvm.transform.Sequential(
                [
                    relax.transform.DeadCodeElimination(),
                    relax.transform.FoldConstant(),
                    relax.transform.LegalizeOps(skip_ops=[LAYER, *VIEWS]),
                    relax.transform.AnnotateTIROpPattern(),
                    relax.transform.FuseOps(),
                    relax.transform.FuseTIR(),
                    relax.transform.DeadCodeElimination(),
                ]
            )(emitted.mod)
        for gvar, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc):
                mod.update_func(gvar, schedule(function))
        return replace(emitted, mod=mod)


def _is_float(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and isinstance(value.op, tvm.ir.Op) and value.op.name not in (LAYER, *VIEWS)
