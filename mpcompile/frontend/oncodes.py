"""Operators that move codes about, between QuantizeLinear and DequantizeLinear: they do the same to the quantized
tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.quantizers import quantizer
from mpcompile.frontend.values import Activation, Codes
from mpcompile.ir.graph import Quantize

MOVES = frozenset(
    """
    Concat DepthToSpace Expand Flatten Gather MaxPool Reshape Resize Slice SpaceToDepth Split Squeeze Tile Transpose
    Unsqueeze
    """.split()
)
"""They only pick from their inputs' values: order is kept, so the largest code is the largest value."""


def moves_codes(imp: Importer, node: Source) -> bool:
    """Whether `node` is one of MOVES and reads codes."""
    if node.op_type not in MOVES:
        return False
    nearest = node.op_type != "Resize" or node.attribute("mode", "nearest") == "nearest"
    return nearest and any(isinstance(imp.value(node, i), Codes) for i in range(node.count) if node.has(i))


def take(imp: Importer, node: Source, work: Callable[[], None]) -> None:
    """Runs `work`, which reads the node, with its codes as quantized tensors; its outputs are codes again. Raises
    ModelError where inputs have different scales: no code of one is a code of the other."""
    read = {node.input_name(i): imp.value(node, i) for i in range(node.count) if node.has(i)}
    held = {name: value for name, value in read.items() if isinstance(value, Codes)}
    first = held[min(held)]
    for codes in held.values():
        if _grid(codes) != _grid(first):
            raise ModelError(f"{node}: reads codes of different scales; codes of one quantizer would be accepted")
    if first.spacing.size > 1:
        raise ModelError(f"{node}: reads codes with a scale for each channel; one scale per tensor would be accepted")
    dtype = imp.type_name(min(held))
    for name, codes in held.items():
        imp.values[name] = Activation(_on_grid(imp, codes))
    work()
    imp.values.update(held)
    for output in filter(None, node.outputs):
        made = imp.values.get(output)
        if isinstance(made, Activation):
            imp.values[output] = replace(first, tensor=made.tensor, node=node.name)
            imp.set_type(output, dtype)


def _grid(codes: Codes) -> tuple:
    return tuple(np.asarray(codes.spacing)), codes.zero, codes.low, codes.high


def on_grid_name(codes: Codes) -> str:
    """The graph tensor that holds these codes' values, where an operator on codes read them. A Split writes several."""
    return f"{codes.node}.{codes.tensor}.on_grid"


def _on_grid(imp: Importer, codes: Codes) -> str:
    """The tensor that the codes were made of, quantized: once for all that read it so."""
    name = on_grid_name(codes)
    if name not in imp.writers:
        made = quantizer(
            f"node {codes.node}", codes.spacing[0], codes.zero, codes.low, codes.high, "half_even", codes.zero_first
        )
        imp.emit(Quantize(imp.unique(name), [codes.tensor], [name], made), quantizer=made)
    return name
