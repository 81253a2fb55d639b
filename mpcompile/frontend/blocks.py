"""DepthToSpace, SpaceToDepth: blocks of pixels to channels and back, as a reshape, a transpose and a reshape, which layers
take in (passes/fold_transposes.py)."""

from __future__ import annotations

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Importer, Source, operator
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Quantizer, Reshape, Transpose


def regrouped(
    imp: Importer,
    name: str,
    x: str,
    output: str,
    split: tuple[int, ...],
    perm: tuple[int, ...],
    shape: tuple[int, ...],
) -> str:
    """Emits x, reshaped to `split`, its axes permuted, reshaped to `shape`: the tensor `output`."""
    quantizer: Quantizer | None = imp.type(x).quantizer
    turned = tuple(split[axis] for axis in perm)
    apart, moved = imp.unique(f"{output}.apart"), imp.unique(f"{output}.moved")
    imp.emit(Reshape(imp.unique(f"{name}.apart"), [x], [apart], split), split, quantizer)
    imp.emit(Transpose(imp.unique(f"{name}.moved"), [apart], [moved], perm), turned, quantizer)
    return imp.emit(Reshape(name, [moved], [output], shape), shape, quantizer)


@operator("DepthToSpace", "SpaceToDepth")
def blocks(imp: Importer, node: Source):
    value = imp.activation(node, 0)
    shape, b = imp.type(value.tensor).shape, node.attribute("blocksize", 0)
    if len(shape) != 3 or b < 1:
        raise ModelError(f"{node}: blocks of {b} over {len(shape) - 1} axes; blocks from 1 over two would be accepted")
    c, h, w = shape
    if node.op_type == "SpaceToDepth":
        fits, split, perm = h % b == 0 == w % b, (c, h // b, b, w // b, b), (2, 4, 0, 1, 3)
        result = (c * b * b, h // b, w // b)
    else:
        first = node.attribute("mode", "DCR") == "DCR"
        inner = c // (b * b)
        fits, split = c % (b * b) == 0, (b, b, inner, h, w) if first else (inner, b, b, h, w)
        perm, result = (2, 3, 0, 4, 1) if first else (0, 3, 1, 4, 2), (inner, h * b, w * b)
    if not fits:
        raise ModelError(f"{node}: blocks of {b} do not fit {list(shape)}; a whole number of them would be accepted")
    regrouped(imp, node.name, value.tensor, node.outputs[0], split, perm, result)
    scaled = None
    if value.scaled and value.scaled[1].size == 1:
        base, factor = value.scaled
        twin = imp.unique(f"{node.outputs[0]}.codes")
        scaled = regrouped(imp, imp.unique(f"{node.name}.codes"), base, twin, split, perm, result), factor
    imp.define(node, Activation(node.outputs[0], value.on_grid, scaled))
