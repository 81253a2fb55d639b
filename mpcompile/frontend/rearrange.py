"""Reshape and its kin, Transpose, Shape: what moves or counts elements. None of them may touch the batch."""

from __future__ import annotations

import math

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Fallback, Importer, Source, operator
from mpcompile.frontend.moved import follow
from mpcompile.frontend.turns import unturned
from mpcompile.frontend.values import Activation, Constant, QuantizedConstant
from mpcompile.ir.graph import Concat, Node, Reshape, Transpose


def reshape_to(imp: Importer, node: Source, shape: tuple[int, ...]) -> None:
    """A Reshape of input 0 to `shape` (without batch)."""
    x = imp.tensor(node, 0)
    kind = imp.type(x)
    if math.prod(kind.shape) != math.prod(shape):
        raise ModelError(f"{node}: {list(kind.shape)} does not reshape to {list(shape)}")
    follow(imp, node, lambda numbers: numbers.reshape(shape))
    if kind.shape == shape:
        return imp.define(node, imp.value(node, 0))
    parts = imp.mixed_parts(x)
    if parts and len(shape) == 1:  # flattening a concat is a concat of what was flattened
        flat = []
        for i, part in enumerate(parts):
            size = (math.prod(imp.type(part).shape),)
            made = Reshape(imp.unique(f"{node.name}.{i}"), [part], [imp.unique(f"{node.outputs[0]}.{i}")], size)
            flat.append(imp.emit(made, size, imp.type(part).quantizer))
        return imp.write(node, Concat(node.name, flat, [node.outputs[0]]), shape)

    def rearranged(name: str, tensor: str, output: str) -> Node:
        return Reshape(name, [tensor], [output], shape)

    moved(imp, node, shape, rearranged)


def moved(imp: Importer, node: Source, shape: tuple[int, ...], make) -> None:
    """Writes make(name, tensor, output) over input 0, a node that only moves values: what is known of them stays
    known."""
    value = imp.activation(node, 0)
    imp.write(node, make(node.name, value.tensor, node.outputs[0]), shape, imp.type(value.tensor).quantizer)
    if value.on_grid:
        imp.define(node, Activation(node.outputs[0], on_grid=value.on_grid))
    if value.scaled and value.scaled[1].size == 1:
        base, factor = value.scaled
        twin = make(imp.unique(f"{node.name}.codes"), base, imp.unique(f"{node.outputs[0]}.codes"))
        imp.define(node, Activation(node.outputs[0], scaled=(imp.emit(twin, shape, imp.type(base).quantizer), factor)))


def moves_batch(imp: Importer, node: Source):
    """A Fallback where the file's batch is 1: there never is another sample, and it runs as ONNX defines it. Else raises
    ModelError."""
    if imp.graph.batch == 1:
        return Fallback("it moves axis 0")
    raise ModelError(
        f"{node}: it moves elements across the batch; one that leaves axis 0 alone, or a batch of 1, would be accepted"
    )


def alone(imp: Importer, node: Source) -> bool:
    """Whether input 0 is a real tensor in a file whose batch is 1, so that its axis 0 may be another than the batch."""
    return imp.graph.batch == 1 and isinstance(imp.value(node, 0), Activation)


def resolved(node: Source, shape: tuple[int, ...], target: list[int]) -> tuple[int, ...]:
    """The sizes that a Reshape's `target` says for a tensor of `shape`. Raises ModelError where they do not fit."""
    kept = not node.attribute("allowzero", 0)
    sizes = [shape[i] if n == 0 and kept and i < len(shape) else n for i, n in enumerate(target)]
    count = math.prod(shape)
    known = math.prod(n for n in sizes if n != -1)
    if sizes.count(-1) == 1 and known > 0 and count % known == 0:
        sizes[sizes.index(-1)] = count // known
    if math.prod(sizes) != count or min(sizes, default=1) < 1:
        raise ModelError(f"{node}: {list(shape)} does not reshape to {target}")
    return tuple(sizes)


def with_batch(imp: Importer, node: Source, sizes: tuple[int, ...]):
    """A Reshape to `sizes`, all of ONNX's axes, in a file whose batch is 1: where axis 0 is not of size 1, it is not the
    batch."""
    whole = imp.activation(node, 0).tensor in imp.whole
    if not sizes:
        return Fallback("it leaves no axis")
    if not whole and sizes[0] == 1:
        return reshape_to(imp, node, sizes[1:])
    shape = sizes if sizes[0] != 1 else sizes[1:]

    def rearranged(name: str, tensor: str, output: str) -> Node:
        return Reshape(name, [tensor], [output], shape)

    moved(imp, node, shape, rearranged)
    if sizes[0] != 1:
        made = imp.values[node.outputs[0]]
        assert isinstance(made, Activation), "what was moved is a real tensor"
        imp.whole.update((made.tensor, made.scaled[0]) if made.scaled else (made.tensor,))


@operator("Reshape")
def reshape(imp: Importer, node: Source):
    target = [int(n) for n in imp.constant(node, 1, "target shape", integer=True).reshape(-1)]
    value = imp.value(node, 0)
    if isinstance(value, QuantizedConstant):
        dims = [value.u.shape[i] if n == 0 and not node.attribute("allowzero", 0) else n for i, n in enumerate(target)]
        return imp.define(node, value.rearranged(lambda a: a.reshape(dims)))
    if alone(imp, node):
        return with_batch(imp, node, resolved(node, imp.shape(value), target))
    shape = imp.type(imp.tensor(node, 0)).shape
    batch = imp.graph.batch or 1
    if not target:
        return moves_batch(imp, node)
    first, rest = (
        target[0],
        [
            shape[i] if n == 0 and not node.attribute("allowzero", 0) and i < len(shape) else n
            for i, n in enumerate(target[1:])
        ],
    )
    if -1 in rest:
        if first not in (0, 1, batch):
            return moves_batch(imp, node)
        known = -math.prod(rest)
        if known == 0 or math.prod(shape) % known:
            raise ModelError(f"{node}: {list(shape)} does not reshape to {rest}")
        rest[rest.index(-1)] = math.prod(shape) // known
    elif first not in (-1, 0, 1, batch) or math.prod(rest) != math.prod(shape):
        return moves_batch(imp, node)
    reshape_to(imp, node, tuple(rest))


@operator("Flatten")
def flatten(imp: Importer, node: Source):
    shape = imp.shape(imp.value(node, 0))
    axis = node.attribute("axis", 1)
    axis += len(shape) if axis < 0 else 0
    if axis != 1 and not (axis == 0 and imp.graph.batch == 1):  # one sample: [1, all] either way
        return moves_batch(imp, node)
    reshape_to(imp, node, (math.prod(shape[1:]),))


def axes_of(imp: Importer, node: Source, rank: int) -> list[int] | None:
    """The axes of Squeeze or Unsqueeze, from input 1 or (before opset 13) the attribute, none negative."""
    axes = imp.constant(node, 1, "axes", integer=True).tolist() if node.has(1) else node.attribute("axes", None)
    return None if axes is None else sorted(int(a) % rank for a in np.atleast_1d(axes))


@operator("Squeeze")
def squeeze(imp: Importer, node: Source):
    shape = imp.shape(imp.value(node, 0))
    axes = axes_of(imp, node, len(shape))
    if axes is None:
        axes = [i for i, n in enumerate(shape) if n == 1 and i]
    if alone(imp, node) and all(shape[i] == 1 for i in axes):
        return with_batch(imp, node, tuple(n for i, n in enumerate(shape) if i not in axes))
    if 0 in axes:
        return moves_batch(imp, node)
    reshape_to(imp, node, tuple(n for i, n in enumerate(shape) if i and i not in axes))


@operator("Unsqueeze")
def unsqueeze(imp: Importer, node: Source):
    shape = list(imp.shape(imp.value(node, 0)))
    axes = axes_of(
        imp,
        node,
        len(shape) + (np.size(imp.constant(node, 1, "axes", True)) if node.has(1) else len(node.attribute("axes", []))),
    )
    if axes is None:
        raise ValueError("it lacks axes")
    for axis in axes:
        shape.insert(axis, 1)
    if alone(imp, node):
        return with_batch(imp, node, tuple(shape))
    if 0 in axes:
        return moves_batch(imp, node)
    reshape_to(imp, node, tuple(shape[1:]))


@operator("Transpose")
def transpose(imp: Importer, node: Source):
    value = imp.value(node, 0)
    shape = imp.shape(value)
    perm = node.attribute("perm", list(range(len(shape)))[::-1])
    if sorted(perm) != list(range(len(shape))):
        raise ModelError(f"{node}: perm {perm} over {len(shape)} axes; a permutation of them would be accepted")
    if isinstance(value, QuantizedConstant):
        return imp.define(node, value.rearranged(lambda a: a.transpose(perm)))
    if perm[0] != 0:
        return moves_batch(imp, node)
    if perm == list(range(len(shape))):
        return imp.define(node, value)
    imp.tensor(node, 0)  # refuses codes
    order = tuple(p - 1 for p in perm[1:])
    follow(imp, node, lambda numbers: numbers.transpose(order))
    undone = unturned(imp, imp.activation(node, 0), order)
    if undone:
        return imp.define(node, undone)

    def rearranged(name: str, tensor: str, output: str) -> Node:
        return Transpose(name, [tensor], [output], order)

    moved(imp, node, tuple(shape[p] for p in perm[1:]), rearranged)


@operator("Shape")
def shape_of(imp: Importer, node: Source):
    """A constant: every dimension but the batch is known, and the batch is the model's own or 1."""
    value = imp.value(node, 0)
    shape = list(imp.shape(value))
    if not isinstance(value, (Constant, QuantizedConstant)) and value.tensor not in imp.whole:
        shape[0] = imp.graph.batch or 1
    imp.define(
        node, Constant(np.array(shape[slice(node.attribute("start", 0), node.attribute("end", None))], np.int64))
    )
