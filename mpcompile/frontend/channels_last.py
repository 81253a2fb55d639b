"""QONNX's channels-last operators: each is that of ONNX between two transposes (turns.py lets most of them vanish)."""

from __future__ import annotations

import onnx_ir as ir

from mpcompile.errors import ModelError

DOMAIN = "qonnx.custom_op.channels_last"
OPERATORS = ("Conv", "MaxPool", "BatchNormalization")


def spread(node: ir.Node, name: str, rank: int) -> list[ir.Node]:
    """ONNX's nodes for one of DOMAIN, called `name`, whose input 0 has `rank` axes. Raises ModelError at another
    operator."""
    if node.op_type not in OPERATORS:
        raise ModelError(
            f"node {name} ({node.op_type}): an operator of domain {DOMAIN} that is not known; "
            f"{', '.join(OPERATORS)} would be accepted"
        )
    if rank < 3:
        raise ModelError(f"node {name} ({node.op_type}): channels last of {rank} axes; 3 or more would be accepted")
    first, last = [0, rank - 1, *range(1, rank - 1)], [0, *range(2, rank), 1]
    made: list[ir.Node] = []

    def add(op: str, inputs: list[ir.Value | None], attributes: list[ir.Attr], what: str) -> ir.Value:
        made.append(ir.Node("", op, inputs, attributes, name=f"{name}{what}"))
        made[-1].outputs[0].name = f"{node.outputs[0].name}{what}"
        return made[-1].outputs[0]

    inputs = list(node.inputs)
    for index in (0, 1) if node.op_type == "Conv" else (0,):
        inputs[index] = add("Transpose", [inputs[index]], [ir.AttrInt64s("perm", first)], f".first{index}")
    result = add(node.op_type, inputs, list(node.attributes.values()), ".channels_first")
    made[-1].name = name
    add("Transpose", [result], [ir.AttrInt64s("perm", last)], "")
    made[-1].name = f"{name}.last"
    return made
