"""Sizes that a file leaves open, from its user: `--shape images=1x3x640x640`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

import onnx_ir as ir

from mpcompile.errors import UsageError

Shapes = Mapping[str, Sequence[int]]
"""Input → its whole shape, the batch in front."""
AXES = {2: "NC", 3: "NCL", 4: "NCHW", 5: "NCDHW"}


def fix_shapes(model: ir.Model, shapes: Shapes) -> None:
    """Gives inputs of `model` these shapes; a size with a name is fixed wherever an input has that name. Raises UsageError,
    naming the input, at one that the model has not, and at sizes that contradict it or each other."""
    constants = model.graph.initializers
    inputs = {value.name or "": value for value in model.graph.inputs if value.name not in constants}
    named: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        if name not in inputs:
            raise UsageError(f"a shape for {name}, which is no input of the model: it has {', '.join(inputs)}")
        sizes = tuple(shape)
        if not sizes or any(not isinstance(n, Integral) or n < 1 for n in sizes):
            raise UsageError(f"the shape of input {name} is {_text(sizes)}; whole sizes from 1 would be accepted")
        value = inputs[name]
        known: Sequence = (None,) * len(sizes) if value.shape is None else tuple(value.shape)
        if len(known) != len(sizes):
            raise UsageError(
                f"the shape {_text(sizes)} of input {name} has {len(sizes)} axes, the model's has {len(known)} "
                f"({_text(_plain(known))})"
            )
        for axis, (size, said) in enumerate(zip(sizes, known)):
            if isinstance(said, int) and said > 0 and said != size:  # some exporters write 0 or −1 for an open size
                raise UsageError(f"axis {axis} of input {name} is {said} in the model, not {size}")
            symbol = said.value if isinstance(said, ir.SymbolicDim) else None
            if symbol:
                other, where = named.setdefault(symbol, (size, name))
                if other != size:
                    raise UsageError(
                        f"{symbol} is {other} by the shape of input {where} and {size} by that of input {name}; one size "
                        "would be accepted"
                    )
        value.shape = ir.Shape([int(n) for n in sizes])
    for value in inputs.values():
        if value.shape is not None:
            value.shape = ir.Shape([_fixed(size, named) for size in value.shape])


def _fixed(size: int | ir.SymbolicDim, named: Mapping[str, tuple[int, str]]) -> int | ir.SymbolicDim:
    return size if isinstance(size, int) else named.get(size.value or "", (size, ""))[0]


def wanted(value: ir.Value) -> str:
    """What to write on the command line for an input with open sizes: known sizes as they are, letters for others."""
    assert value.shape is not None
    letters = AXES.get(len(value.shape), "")
    sizes = [
        str(size)
        if isinstance(size, int) and size > 0
        else "1"
        if axis == 0
        else letters[axis : axis + 1] or f"D{axis}"
        for axis, size in enumerate(value.shape)
    ]
    return f"--shape {value.name}={'x'.join(sizes)}"


def _plain(shape: Sequence) -> list:
    return [size if isinstance(size, int) else size.value or "?" for size in shape]


def _text(sizes: Sequence) -> str:
    return "x".join(map(str, sizes)) or "empty"
