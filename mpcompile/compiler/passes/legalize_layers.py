"""Layers to kernels: a call of mpcompile.layer becomes a call_tir of a scheduled PrimFunc; equal layers share one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import tvm
from tvm import relax

from mpcompile.compiler.emit import Emitted, Families
from mpcompile.compiler.relax_ops import LAYER, VIEWS, parameters, tensor_type
from mpcompile.errors import ModelError
from mpcompile.ir.formats import Buffer
from mpcompile.ir.graph import Graph
from mpcompile.ir.layer import Layer
from mpcompile.kernels.layer import Lowered, Tiles, lower
from mpcompile.schedules import architecture_of
from mpcompile.targets import Target


@dataclass(frozen=True)
class LegalizeLayers:
    """Before: `main` calls mpcompile.layer. After: call_tir, with the kernel's constants (packed weights, tables) as
    arguments.

    Where a kernel sees a buffer's bytes as another dtype or shape (planes as 32-bit words), a `memory.view` says so,
    so that the module is well formed. `tiles` overrides the tile of a layer, by its name; `tuned` chooses the others'.
    `apply` returns the module and each layer's Lowered.
    """

    graph: Graph
    families: Families
    target: Target
    tiles: Mapping[str, dict] = field(default_factory=dict)
    progress: Callable[[str], None] | None = None
    tuned: Tiles | None = None

    def apply(self, emitted: Emitted) -> tuple[Emitted, dict[str, Lowered]]:
        work = _Legalizer(self, emitted)
        with tvm.transform.PassContext(opt_level=3):
            mod = relax.transform.LegalizeOps({LAYER: work.legalize}, skip_ops=list(VIEWS))(emitted.mod)
        return replace(emitted, mod=mod), work.lowered


class _Legalizer:
    """Lowers every layer first, in Python: an exception that passes through TVM's C++ leaves a warning on stderr."""

    def __init__(self, options: LegalizeLayers, emitted: Emitted):
        self.stored: dict[str, list[Buffer]] = {}
        for buffer in emitted.buffers.values():
            self.stored.setdefault(buffer.tensor, []).append(buffer)
        self.taken = {gvar.name_hint for gvar in emitted.mod.get_global_vars()}
        self.functions: dict[str, tvm.ir.GlobalVar] = {}
        self.layers = {n.name: n for n in options.graph.nodes if isinstance(n, Layer)}
        self.lowered = {name: self._lower(node, options) for name, node in self.layers.items()}

    def _lower(self, node: Layer, options: LegalizeLayers) -> Lowered:
        if options.progress:
            options.progress(f"lowering {node.name}")
        outputs = {t: self.stored[t] for t in node.outputs}
        found = lower(
            node,
            self._inputs(node),
            outputs,
            options.families.get(node.name, {}),
            architecture_of(options.target),
            options.tiles.get(node.name),
            options.tuned,
        )
        wanted = [b for buffers in outputs.values() for b in buffers]
        if found.outputs != wanted:
            raise ModelError(
                f"layer {node.name}: its kernel writes {', '.join(b.key for b in found.outputs)}, "
                f"the graph stores {', '.join(b.key for b in wanted)}"
            )
        return found

    def _inputs(self, node: Layer) -> dict[str, list[Buffer]]:
        return {t: self.stored[t] for t in dict.fromkeys(node.inputs)}

    def legalize(self, builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        """FLegalize of mpcompile.layer."""
        node = self.layers[str(call.attrs["node"])]
        found = self.lowered[node.name]
        declared = [relax.TensorType(shape, dtype) for dtype, shape in parameters(found.func)]
        args = dict(zip((b for buffers in self._inputs(node).values() for b in buffers), call.args))
        views = [_viewed(builder, args[b], kind) for b, kind in zip(found.inputs, declared)]
        constants = [relax.const(c) for c in found.constants]
        types = declared[len(views) + len(constants) :]
        result = builder.emit(relax.call_tir(self._function(builder, node, found), views + constants, types))
        parts = [result]
        if len(types) > 1:
            parts = [builder.emit(relax.TupleGetItem(result, i)) for i in range(len(types))]
        parts = [_viewed(builder, part, tensor_type(b)) for part, b in zip(parts, found.outputs)]
        return parts[0] if len(parts) == 1 else relax.Tuple(parts)

    def _function(self, builder: relax.BlockBuilder, node: Layer, found: Lowered) -> tvm.ir.GlobalVar:
        if found.key not in self.functions:
            base = "mp_" + re.sub(r"\W+", "_", node.name).strip("_")
            name, n = base, 1
            while name in self.taken:
                n += 1
                name = f"{base}__{n}"
            self.taken.add(name)
            function = found.func.with_attr("global_symbol", name)
            self.functions[found.key] = builder.add_func(function, name)
        return self.functions[found.key]


def _viewed(builder: relax.BlockBuilder, value: relax.Expr, kind: relax.TensorType) -> relax.Expr:
    """`value`, the same bytes, as `kind`."""
    shape = [int(n) for n in value.ty.shape.values]
    if shape == [int(n) for n in kind.shape.values] and str(value.ty.dtype) == str(kind.dtype):
        return value
    return builder.emit(relax.op.memory.view(value, kind.shape, kind.dtype))
