"""Convolutions over channels of concats that were moved: their order goes into the weights."""

from __future__ import annotations

import math
from itertools import accumulate

import numpy as np

from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.moved import Moved, moved_of, parts_of
from mpcompile.frontend.picking import pattern, view
from mpcompile.ir.graph import Along, Concat, Listed


def beside(imp: Importer, node: Source) -> None:
    """Remembers a Concat of channels where an input is moved, and all are made of quantized tensors."""
    if not any(node.input_name(i) in imp.moved for i in range(node.count)):
        return
    parts = [moved_of(imp, node, i, single=True) for i in range(node.count)]
    held = [p for p in parts if p is not None]
    sizes = {shape[1:] for p in held for shape in (p.numbers.shape, imp.type(p.tensor).shape)}
    if len(held) < len(parts) or len(sizes) != 1:
        return
    counts = [math.prod(imp.type(p.tensor).shape) for p in held]
    shape = (sum(imp.type(p.tensor).shape[0] for p in held), *sizes.pop())
    tensor = imp.unique(f"{node.outputs[0]}.parts")
    imp.emit(Concat(imp.unique(f"{node.name}.parts"), [p.tensor for p in held], [tensor]), shape)
    numbers = [p.numbers + start for p, start in zip(held, accumulate([0, *counts[:-1]]))]
    imp.moved[node.outputs[0]] = Moved(tensor, np.concatenate(numbers))


def channels(imp: Importer, node: Source) -> tuple[str, np.ndarray] | None:
    """Input 0, moved channel by channel, as (a Concat of quantized tensors, for each of its channels the input's that lies
    there); None where it is no such thing."""
    moved = imp.moved.get(node.input_name(0))
    if moved is None:
        return None
    shape, size = imp.type(moved.tensor).shape, math.prod(imp.type(moved.tensor).shape[1:])
    order = moved.numbers.reshape(len(moved.numbers), -1)[:, 0] // size
    whole = order.reshape(-1, *[1] * (len(shape) - 1)) * size + np.arange(size).reshape(1, *shape[1:])
    if moved.numbers.shape[1:] != shape[1:] or not np.array_equal(moved.numbers, whole):
        return None
    if np.array_equal(np.sort(order), np.arange(shape[0])):
        return moved.tensor, np.argsort(order)
    views, at = [], []
    left = np.arange(len(order))
    while len(left):  # a channel that is read twice is in two views
        used, first = np.unique(order[left], return_index=True)
        at.append(left[first])
        views += _only(imp, node, moved.tensor, used)
        left = np.delete(left, first)
    return _joined(imp, node, views, (len(order), *shape[1:])), np.concatenate(at)


def _only(imp: Importer, node: Source, tensor: str, used: np.ndarray) -> list[str]:
    """Views of the channels `used`, in order, of each part of a Concat."""
    views, start = [], 0
    for part in parts_of(imp, tensor):
        wide, *size = imp.type(part).shape
        of = used[(used >= start) & (used < start + wide)] - start
        start += wide
        if len(of):
            along = pattern(of) or Listed(tuple(map(int, of)))
            views.append(view(imp, node, part, (along, *map(Along, size)), imp.unique(f"{part}.some")))
    return views


def _joined(imp: Importer, node: Source, views: list[str], shape: tuple[int, ...]) -> str:
    if len(views) == 1:
        return views[0]
    return imp.emit(Concat(imp.unique(f"{node.name}.parts"), views, [imp.unique(f"{node.name}.parts")]), shape)
