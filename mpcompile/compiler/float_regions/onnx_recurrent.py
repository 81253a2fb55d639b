"""ONNX's RNN, GRU and LSTM for TVM's importer, which has none: calls of the kernels of recurrent.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from mpcompile.compiler.float_regions.contraction import Vectors
from mpcompile.compiler.float_regions.recurrent import DEFAULTS, FUNCTIONS, GATES, Recurrent, recurrent

REVERSE = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@contextmanager
def recurrent_operators(vectors: Vectors) -> Iterator[None]:
    """TVM's importer knows them inside: its table has no other way in."""
    before = onnx_frontend._get_convert_map  # pyright: ignore[reportPrivateUsage]
    ours = {cell: _Converter(cell, vectors) for cell in GATES}
    onnx_frontend._get_convert_map = lambda: before() | ours  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        onnx_frontend._get_convert_map = before  # pyright: ignore[reportPrivateUsage]


class _Converter:
    """What the importer takes for a converter of one operator."""

    def __init__(self, cell: str, vectors: Vectors):
        self.cell, self.vectors = cell, vectors

    def get_converter(self, opset: int) -> Any:
        return self._convert

    def _convert(self, builder: Any, inputs: Sequence[Any], attributes: dict[str, Any], parameters: Any) -> Any:
        x, w, r, b, lengths, *states = [*inputs, *[None] * (8 - len(inputs))]
        if lengths is not None and not _all(lengths, _shape(x)[1 if attributes.get("layout", 0) else 0]):
            raise NotImplementedError(f"{self.cell} with sequence_lens; sequences of one length would be accepted")
        by_sample = bool(attributes.get("layout", 0))
        turned = (lambda value, *axes: builder.emit(relax.op.permute_dims(value, list(axes)))) if by_sample else None
        if turned:
            x, states = (
                turned(x, 1, 0, 2),
                [s if s is None or i == 2 else turned(s, 1, 0, 2) for i, s in enumerate(states)],
            )
        of = _described(self.cell, attributes, _shape(x), _shape(r), states[2] is not None)
        zeros = lambda shape: relax.const(np.zeros(shape, np.float32))
        gates_last = [builder.emit(relax.op.permute_dims(m, [0, 2, 1])) for m in (w, r)]
        args = [x, *gates_last, b if b is not None else zeros((of.directions, 2 * of.gates))]
        args += [
            states[i] if states[i] is not None else zeros(of.state) for i in range(2 if self.cell == "LSTM" else 1)
        ]
        args += [states[2]] if of.peepholes else []
        function = builder.add_func(recurrent(of, self.vectors), self.cell.lower())
        results: list[Any] = list(of.results)
        kinds: Any = [relax.TensorType(shape, "float32") for shape in results]
        made = builder.emit(relax.call_tir(function, relax.Tuple(args), kinds))
        results = [builder.emit(relax.TupleGetItem(made, i)) for i in range(len(kinds))]
        if turned:
            results = [turned(results[0], 2, 0, 1, 3), *(turned(s, 1, 0, 2) for s in results[1:])]
        return relax.Tuple(results)


def _described(cell: str, attributes: dict[str, Any], x: Sequence[int], r: Sequence[int], peepholes: bool) -> Recurrent:
    """Raises NotImplementedError naming what the kernels do not do."""
    reverse = REVERSE[_text(attributes.get("direction", b"forward"))]
    functions = tuple(_text(f).capitalize() for f in attributes.get("activations", DEFAULTS[cell] * len(reverse)))
    for name in functions:
        if name not in FUNCTIONS:
            raise NotImplementedError(f"{cell} with {name}; {', '.join(FUNCTIONS)} would be accepted")
    for name in ("clip", "input_forget"):
        if attributes.get(name, 0):
            raise NotImplementedError(f"{cell} with {name}; one without would be accepted")
    return Recurrent(
        cell,
        steps=x[0],
        batch=x[1],
        inputs=x[2],
        hidden=r[2],
        reverse=reverse,
        functions=functions,
        reset_last=bool(attributes.get("linear_before_reset", 0)),
        peepholes=peepholes,
    )


def _all(lengths: Any, steps: int) -> bool:
    """Whether they are known to be all steps."""
    return isinstance(lengths, tvm.ir.GenericConst) and bool((lengths.value.numpy() == steps).all())  # pyright: ignore[reportAttributeAccessIssue]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _shape(value: Any) -> list[int]:
    """Extents of a tensor. Raises NotImplementedError where they are not known, or it is not float32."""
    extents = getattr(value.ty.shape, "values", None)
    if extents is None or str(value.ty.dtype) != "float32":
        raise NotImplementedError("recurrent operators of other than float32, or of sizes that only a run can tell")
    return [int(n) for n in extents]
