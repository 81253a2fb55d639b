"""Transposes that undo each other, with operators by element between them: channels-last files are full of them.

    Transpose⁻¹(relu(Transpose(x)))  =  relu(x)

What is computed between the two is computed again without them; what nobody reads any more is dropped afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from mpcompile.frontend.importer import Importer
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Add, Affine, Clip, Node, PRelu, Quantize, Transpose

DEEPEST = 64
"""Operators between two transposes that are looked through."""


def unturned(imp: Importer, value: Activation, order: tuple[int, ...]) -> Activation | None:
    """`value` transposed by `order` (axes without batch), if that takes no transpose; else None."""
    tensor = _without(imp, value.tensor, order, DEEPEST)
    if tensor is None:
        return None
    base = _without(imp, value.scaled[0], order, DEEPEST) if value.scaled and value.scaled[1].size == 1 else None
    return Activation(tensor, value.on_grid, (base, value.scaled[1]) if base and value.scaled else None)


def _by_element(node: Node | None) -> bool:
    if isinstance(node, Affine):
        return node.a.size == node.b.size == 1
    if isinstance(node, PRelu):
        return node.slope.size == 1
    return isinstance(node, (Quantize, Clip, Add))


def _without(imp: Importer, tensor: str, order: tuple[int, ...], depth: int) -> str | None:
    """The tensor that is `tensor` transposed by `order`: what a Transpose by the inverse read, or what operators by element
    make of such."""
    node = imp.writers.get(tensor)
    if isinstance(node, Transpose):
        undone = all(node.perm[axis] == i for i, axis in enumerate(order))
        return node.inputs[0] if undone else None
    if node is None or not depth or not _by_element(node):
        return None
    name = f"{tensor}.unturned.{'_'.join(map(str, order))}"
    if name not in imp.writers:
        inputs = [_without(imp, t, order, depth - 1) for t in node.inputs]
        if None in inputs:
            return None
        made = replace(node, name=imp.unique(f"{node.name}.unturned"), inputs=inputs, outputs=[name])
        shape = imp.type(tensor).shape
        imp.emit(made, tuple(shape[axis] for axis in order), imp.type(tensor).quantizer)
    return name
