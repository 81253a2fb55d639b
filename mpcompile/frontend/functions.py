"""Functions of one quantized tensor, as tables: SiLU, HardSwish, Sigmoid and their kin at each level of its grid. Exact by
construction; of a tensor that is on no grid they run in float."""

from __future__ import annotations

import numpy as np

from mpcompile.frontend.floatop import evaluated, single_node
from mpcompile.frontend.importer import UNQUANTIZED, Fallback, Importer, Source, operator
from mpcompile.frontend.values import Activation
from mpcompile.ir.graph import Table

MOST_LEVELS = 256
"""Of a grid that gets tables: 8 bits."""


@operator(
    *"""
    Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Log Mish Reciprocal
    Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu Shrink
    """.split()
)
def function(imp: Importer, node: Source):
    return tabulated(imp, node, 0)


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
