"""Relax operators to kernels that are written loop by loop; what is not taken here has TVM's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import tvm
from tvm import relax

from mpcompile.compiler.float_regions import rows
from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.convolution import Window, convolution
from mpcompile.compiler.float_regions.epilogues import NOTHING, Written
from mpcompile.compiler.float_regions.matmul import matmul
from mpcompile.kernels.tvm_names import PrimFunc

Shape = tuple[int, ...]
LEAST_COLUMNS = 4
"""Of a product: fewer are no vector."""
Take = Callable[[Any, list[Shape], Shape, Vectors], PrimFunc | Written | None]
"""(call, shapes of its arguments, shape of its result, vectors) → a kernel of these, or None."""


def legalizations(vectors: Vectors, written: dict[str, Written]) -> dict[str, Callable[[Any, Any], Any]]:
    """Operator → (builder, call) → an expression, as LegalizeOps takes them. Kernels that may have epilogues are entered
    into `written`."""
    return {name: _legalize(name, take, vectors, written) for name, take in TAKEN.items()}


def _legalize(name: str, take: Take, vectors: Vectors, written: dict[str, Written]) -> Callable[[Any, Any], Any]:
    def legalize(builder: Any, call: Any) -> Any:
        shapes, result = [_float_shape(a) for a in call.args], _float_shape(call)
        known = result is not None and all(s is not None for s in shapes)
        made = take(call, [s for s in shapes if s is not None], result, vectors) if known and result else None
        if made is None:
            return tvm.ir.Op.get(name).get_attr("FLegalize")(builder, call)
        hint = name.rpartition(".")[2]
        function = builder.add_func(made.make(NOTHING) if isinstance(made, Written) else made, hint)
        if isinstance(made, Written):
            written[function.name_hint] = made
        return relax.call_tir(function, relax.Tuple(list(call.args)), relax.TensorType(result, "float32"))  # pyright: ignore[reportArgumentType]

    return legalize


def _float_shape(value: Any) -> Shape | None:
    """Of a float32 tensor whose extents are known."""
    kind = value.ty
    if not isinstance(kind, relax.TensorType) or str(kind.dtype) != "float32":
        return None
    extents: Any = getattr(kind.shape, "values", None)
    if extents is None or not all(isinstance(n, int | tvm.tirx.IntImm) for n in extents):
        return None
    return tuple(int(n) for n in extents)


def _axes(axes: Any, rank: int) -> list[int]:
    if axes is None:
        return list(range(rank))
    return sorted(int(a) % rank for a in (axes if isinstance(axes, Sequence) else [axes]))


def _trailing(axes: list[int], rank: int) -> bool:
    """Whether they are the last ones."""
    return bool(axes) and axes == list(range(rank - len(axes), rank))


def _softmax(logarithm: bool) -> Take:
    def take(call: Any, shapes: list[Shape], result: Shape, vectors: Vectors) -> PrimFunc | None:
        if not _trailing(_axes(call.attrs.axis, len(result)), len(result)):
            return None
        return rows.softmax(result, vectors.lanes, logarithm)

    return take


def _layer_norm(call: Any, shapes: list[Shape], result: Shape, vectors: Vectors) -> PrimFunc | None:
    axes = _axes(call.attrs.axes, len(result))
    if not _trailing(axes, len(result)) or not (call.attrs.center and call.attrs.scale):
        return None
    inner = tuple(result[a] for a in axes)
    if any(prod(s) != prod(inner) for s in shapes[1:]):
        return None
    return rows.layer_norm(shapes, len(axes), float(call.attrs.epsilon), vectors.lanes)


def _reduction(name: str) -> Take:
    def take(call: Any, shapes: list[Shape], result: Shape, vectors: Vectors) -> PrimFunc | None:
        (shape,) = shapes
        axes = _axes(call.attrs.axis, len(shape))
        if not _trailing(axes, len(shape)):
            return None
        return rows.reduction(name, shape, result, vectors.lanes)

    return take


def _matmul(call: Any, shapes: list[Shape], result: Shape, vectors: Vectors) -> Written | None:
    a, b = shapes
    if len(a) < 2 or len(b) < 2 or b[-1] < LEAST_COLUMNS:
        return None
    rank = len(result)
    known = frozenset({rank - 2, rank - 1} | {i for i, n in enumerate(result) if n == 1})
    return Written(lambda epilogue: matmul(a, b, result, vectors, epilogue), known)


def _convolution(call: Any, shapes: list[Shape], result: Shape, vectors: Vectors) -> Written | None:
    attrs, rank = call.attrs, len(result) - 2
    layouts = ("NCW", "OIW") if rank == 1 else ("NCHW", "OIHW")
    if (attrs.data_layout, attrs.kernel_layout) != layouts or attrs.out_layout != attrs.data_layout:
        return None
    x, w = shapes
    strides, dilations, pads = ([int(n) for n in of] for of in (attrs.strides, attrs.dilation, attrs.padding))
    if len(pads) != 2 * rank:
        pads = pads * 2 if len(pads) == rank else pads * 2 * rank
    one = rank == 1
    window = Window(
        channels=x[1],
        height=1 if one else x[2],
        width=x[-1],
        filters=w[0],
        kernel=(1, w[2]) if one else (w[2], w[3]),
        strides=(1, strides[0]) if one else (strides[0], strides[1]),
        dilations=(1, dilations[0]) if one else (dilations[0], dilations[1]),
        pads=(0, pads[0], 0, pads[1]) if one else (pads[0], pads[1], pads[2], pads[3]),
        groups=int(attrs.groups),
    )
    return Written(lambda epilogue: convolution(window, shapes, result, vectors, epilogue), frozenset({0, 1}))


TAKEN: dict[str, Take] = {
    "relax.matmul": _matmul,
    "relax.nn.conv1d": _convolution,
    "relax.nn.conv2d": _convolution,
    "relax.nn.softmax": _softmax(logarithm=False),
    "relax.nn.log_softmax": _softmax(logarithm=True),
    "relax.nn.layer_norm": _layer_norm,
    **{name: _reduction(name) for name in rows.REDUCTIONS},
}
