"""Concats of quantized tensors whose elements were moved (channel shuffles, splits of such): which element of a Concat
each one is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.limits import MOST_PARTS
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Concat

MOST = 1 << 22
"""Elements of a Concat that are followed."""


class Moved(NamedTuple):
    """`numbers`, of the value's shape without batch: which element of `tensor`, a Concat of quantized tensors, or one, each
    of its elements is."""

    tensor: str
    numbers: np.ndarray


def moved_of(imp: Importer, node: Source, index: int, single: bool = False) -> Moved | None:
    """What input `index` is made of, where it is such a Concat, moved or not; with `single`, or one quantized tensor."""
    known = imp.moved.get(node.input_name(index))
    if known is not None:
        return known
    value = imp.value(node, index)
    if not isinstance(value, Activation) or value.tensor in imp.whole:
        return None
    shape = imp.type(value.tensor).shape
    joined = len(parts_of(imp, value.tensor)) > 1
    if not (joined or (single and imp.type(value.tensor).quantizer)) or math.prod(shape) > MOST:
        return None
    return Moved(value.tensor, np.arange(math.prod(shape)).reshape(shape))


def parts_of(imp: Importer, tensor: str) -> list[str]:
    """The quantized tensors that a Concat joins, through Concats of Concats, on whatever grids; of any other tensor, or of
    very many, its name."""
    found: list[str] = []
    ahead = [tensor]
    while ahead:
        part = ahead.pop()
        writer = imp.writers.get(part)
        if isinstance(writer, Concat) and (imp.type(part).quantizer or imp.mixed_parts(part)):
            ahead += reversed(writer.inputs)
        else:
            found.append(part)
        if len(found) + len(ahead) > MOST_PARTS:
            return [tensor]
    return found


def follow(imp: Importer, node: Source, change: Callable[[np.ndarray], np.ndarray], output: str = "") -> None:
    """Remembers `output`, output 0 unless named, as input 0 after `change`, of arrays."""
    base = moved_of(imp, node, 0)
    if base is not None:
        imp.moved[output or node.outputs[0]] = Moved(base.tensor, change(base.numbers))
