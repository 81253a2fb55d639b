"""Functions of one quantized tensor, as tables: SiLU, HardSwish, Sigmoid and their kin at each level of its grid, exact by
construction. Of what a layer computes that is on no grid (an accumulator) the smooth ones are part of that layer, by an
exact definition of their own; others, and those of what no layer computes, run in float."""

from __future__ import annotations

import numpy as np

from mpcompile.frontend.floatop import evaluated, single_node
from mpcompile.frontend.importer import UNQUANTIZED, Fallback, Importer, Source, operator
from mpcompile.frontend.rows import in_layers
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Affine, Clip, Mul, Smooth, Table

MOST_LEVELS = 256
"""Of a grid that gets tables: 8 bits."""


@operator(
    *"""
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Log Mish Reciprocal
    Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Shrink
    """.split()
)
def function(imp: Importer, node: Source):
    found = tabulated(imp, node, 0)
    if found is not UNQUANTIZED:
        return found
    value = imp.value(node, 0)
    if not isinstance(value, Activation) or not in_layers(imp, value.tensor):
        return UNQUANTIZED
    return of_accumulator(imp, node, value.tensor)


SMOOTH = {"Exp": "exp", "Sigmoid": "sigmoid", "Tanh": "tanh", "Erf": "erf", "Softplus": "softplus", "Mish": "mish",
          "Softsign": "softsign"}  # fmt: skip
"""Operator → function of ir/smooth.py."""


def of_accumulator(imp: Importer, node: Source, x: str):
    """The function of a tensor that a layer computes, on no grid: as part of the layer. A Fallback where there is no
    definition of it."""

    def number(name: str, default: float) -> float:
        return float(np.float32(node.attribute(name, default)))

    parameters: tuple[float, ...] = ()
    match node.op_type:
        case "Elu":
            name, parameters = "elu", (number("alpha", 1.0),)
        case "Celu":
            alpha = number("alpha", 1.0)
            name, parameters = "elu", (alpha, 1.0, alpha)
        case "Selu":
            name = "elu"
            parameters = (number("alpha", 1.67326319217681884765625), number("gamma", 1.05070102214813232421875))
        case "Gelu":
            name = "gelu_tanh" if node.attribute("approximate", "none") == "tanh" else "gelu"
        case "Swish":
            name, parameters = "silu", (number("alpha", 1.0),)
        case "HardSigmoid":
            return hard(imp, node, x, number("alpha", 0.2), number("beta", 0.5), node.outputs[0])
        case "HardSwish":
            gate = imp.unique(f"{node.outputs[0]}.gate")
            hard(imp, node, x, 1 / 6, 0.5, gate)
            return imp.write(node, Mul(node.name, [x, gate], [node.outputs[0]]))
        case _:
            name = SMOOTH.get(node.op_type, "")
    if not name:
        return UNQUANTIZED
    imp.write(node, Smooth(node.name, [x], [node.outputs[0]], name, parameters))


def hard(imp: Importer, node: Source, x: str, alpha: float, beta: float, output: str) -> None:
    """max(0, min(1, alpha·x + beta)): the tensor `output`."""
    line = imp.unique(f"{output}.line")
    imp.emit(Affine(imp.unique(f"{node.name}.line"), [x], [line], np.array([alpha]), np.array([beta])))
    imp.emit(Clip(imp.unique(f"{node.name}.clip"), [line], [output], 0.0, 1.0))
    if output == node.outputs[0]:
        imp.define(node, Activation(output))


@operator("Pow")
def power(imp: Importer, node: Source):
    """By a constant exponent."""
    exponent = imp.real_constant(node, 1)
    if exponent is None or exponent.size != 1:
        return Fallback("its exponent is no constant number")
    return tabulated(imp, node, 0)


def tabulated(imp: Importer, node: Source, index: int):
    """A Table of input `index`, the others being constants; a Fallback where it is on no grid of so few levels, or where a
    value is not finite."""
    source = imp.quantized(node, index)
    quantizer = imp.type(source.tensor).quantizer if source else None
    if source is None or quantizer is None or quantizer.grid.levels > MOST_LEVELS:
        return UNQUANTIZED
    x = (quantizer.grid.values * quantizer.scale * source.factor).astype(np.float32)
    constants = {
        node.input_name(i): imp.constant(node, i, "parameter", integer=True)
        for i in range(node.count)
        if i != index and node.has(i)
    }
    name = node.input_name(index)
    model = single_node(imp, node, constants, {name: (1, len(x))}, [o for o in node.outputs if o])
    with np.errstate(all="ignore"):  # what comes out not finite is no table
        results = evaluated(model, {name: x[None]})
    if isinstance(results, Fallback):
        return results
    y = np.asarray(results[0])
    if y.shape != (1, len(x)) or y.dtype != np.float32 or not np.isfinite(y).all():
        return Fallback("its value at some code is not finite")
    imp.emit(Table(node.name, [source.tensor], [node.outputs[0]], y[0]))
    imp.define(node, Activation(node.outputs[0]))
