"""QOperator files: ONNX Runtime's other format, whose operators work on codes. Each is read as what it means, the operator
between a DequantizeLinear of each input and a QuantizeLinear of its output; from there on they are QDQ files.

    QLinearConv(x, x_s, x_z, w, w_s, w_z, y_s, y_z, b)  =  Q(Conv(DQ(x), DQ(w), x_s·w_s·b), y_s, y_z)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import array_of
from mpcompile.frontend.quantizers import ZERO_FIRST
from mpcompile.frontend.spatial import SCALES

MICROSOFT = "com.microsoft"


class _Expansion:
    """The nodes that replace one."""

    def __init__(self, node: ir.Node, name: str, opset: int):
        self.old, self.name, self.opset = node, name, opset
        self.nodes: list[ir.Node] = []

    def __str__(self) -> str:
        return f"node {self.name} ({self.old.op_type})"

    def input(self, index: int) -> ir.Value | None:
        return self.old.inputs[index] if index < len(self.old.inputs) else None

    def add(self, op: str, inputs: Sequence[ir.Value | None], attributes: Sequence[ir.Attr] = (), what: str = ""):
        made = ir.Node("", op, list(inputs), list(attributes), name=f"{self.name}.{what}" if what else self.name)
        made.outputs[0].name = f"{self.old.outputs[0].name}.{what or op}"
        self.nodes.append(made)
        return made.outputs[0]

    def add_several(self, op: str, inputs: Sequence[ir.Value | None], outputs: int) -> Sequence[ir.Value]:
        """The outputs of a node with so many."""
        made = ir.Node("", op, list(inputs), num_outputs=outputs, name=f"{self.name}.{op}")
        for i, value in enumerate(made.outputs):
            value.name = f"{self.old.outputs[0].name}.{op}.{i}"
        self.nodes.append(made)
        return made.outputs

    def real(self, first: int, what: str, axis: int | None = None) -> ir.Value:
        """DequantizeLinear of the inputs first, first + 1, first + 2: codes, scale, zero point."""
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        return self.add("DequantizeLinear", [self.input(first + i) for i in range(3)], attributes, what)

    def constant_scale(self, index: int) -> np.ndarray:
        """The scale that input `index` is."""
        value = self.input(index)
        if value is None or value.const_value is None:
            raise ModelError(f"{self}: a scale that is computed at run time; a constant would be accepted")
        return array_of(value.const_value)

    def bias(self, index: int, scales: Sequence[int]) -> ir.Value | None:
        """The int32 bias of a contraction, whose scale is the product of its inputs' scales."""
        if self.input(index) is None:
            return None
        scale = np.ones((), np.float64)
        for i in scales:
            scale = scale * self.constant_scale(i).astype(np.float64)
        made = self.add("Constant", [], [ir.AttrTensor("value", ir.tensor(scale.astype(np.float32)))], "bias_scale")
        axis = [ir.AttrInt64("axis", 0)] if scale.size > 1 else []
        return self.add("DequantizeLinear", [self.input(index), made], axis, "bias")

    def codes(self, value: ir.Value, scale: int, zero: int, zero_first: bool = False) -> None:
        """QuantizeLinear to the old output."""
        attributes = [ir.AttrInt64(ZERO_FIRST, 1)] if zero_first else []
        self.add("QuantizeLinear", [value, self.input(scale), self.input(zero)], attributes, "codes")


def _kept(node: ir.Node, *names: str) -> list[ir.Attr]:
    return [a for name, a in node.attributes.items() if name in names]


def _conv(e: _Expansion) -> None:
    weights = e.real(3, "weights", 0)
    inputs = [e.real(0, "input"), weights, e.bias(8, (1, 4))]
    e.codes(e.add("Conv", inputs, list(e.old.attributes.values())), 6, 7)


def _matmul(e: _Expansion) -> None:
    e.codes(e.add("MatMul", [e.real(0, "a"), e.real(3, "b", 1)]), 6, 7)


def _gemm(e: _Expansion) -> None:
    transposed = e.old.attributes.get("transB")
    axis = 0 if transposed is not None and transposed.value else 1
    inputs = [e.real(0, "a"), e.real(3, "b", axis), e.bias(6, (1, 4))]
    e.codes(e.add("Gemm", inputs, _kept(e.old, "alpha", "transA", "transB")), 7, 8)


def _binary(op: str) -> Callable[[_Expansion], None]:
    def expand(e: _Expansion) -> None:
        e.codes(e.add(op, [e.real(0, "a"), e.real(3, "b")]), 6, 7, zero_first=True)

    return expand


def _unary(op: str, *attributes: str) -> Callable[[_Expansion], None]:
    def expand(e: _Expansion) -> None:
        e.codes(e.add(op, [e.real(0, "input")], _kept(e.old, *attributes)), 3, 4, zero_first=op == "AveragePool")

    return expand


def _global_average(e: _Expansion) -> None:
    """The mean carries the scales with it: which factor ONNX Runtime makes of them depends on the map's size."""
    scales = [float(e.constant_scale(i).astype(np.float32).reshape(())) for i in (1, 3)]
    pooled = e.add("GlobalAveragePool", [e.real(0, "input")], [ir.AttrFloat32s(SCALES, scales)])
    e.codes(pooled, 3, 4)


def _softmax(e: _Expansion) -> None:
    """ONNX Runtime multiplies by ⌊1/scale⌋ where it means to divide by the output's scale: the same at the 1/256 that its
    quantizer gives every Softmax, up to half a percent less at others. (It also lets int8 codes wrap where they leave
    their range, at a probability of 1: here they are clamped, as everywhere else.)"""
    opset = e.old.attributes.get("opset")
    if opset is not None and (int(opset.value) < 13) != (e.opset < 13):
        raise ModelError(
            f"{e}: a Softmax of opset {opset.value} in a model of opset {e.opset}, which flattens otherwise; the "
            "same would be accepted"
        )
    made = e.add("Softmax", [e.real(0, "input")], _kept(e.old, "axis"))
    scale = e.constant_scale(3).astype(np.float32).reshape(())
    with np.errstate(divide="ignore", over="ignore"):  # a scale of 0 is refused by the quantizer
        short = np.floor(np.float32(1) / scale) * np.float64(scale)
    if np.isfinite(short) and abs(short - 1) > 1e-6:
        tensor = ir.tensor(np.array(short, np.float32))
        made = e.add("Mul", [made, e.add("Constant", [], [ir.AttrTensor("value", tensor)], "short")], what="shortened")
    e.codes(made, 3, 4)


def _concat(e: _Expansion) -> None:
    inputs = [e.real(i, f"input{i // 3}") for i in range(2, len(e.old.inputs), 3)]
    e.codes(e.add("Concat", inputs, _kept(e.old, "axis")), 0, 1)


def _scaled(e: _Expansion, a: Sequence[ir.Value | None], b: Sequence[ir.Value | None], bias: ir.Value | None) -> None:
    """The product of `a` and `b`, each (codes, scale, zero point), in real values."""
    sums = e.add("MatMulInteger", [a[0], b[0], a[2], b[2]], what="sums")
    real = e.add("Cast", [sums], [ir.AttrInt64("to", ir.DataType.FLOAT)], "cast")
    product = e.add("Mul", [real, e.add("Mul", [a[1], b[1]], what="scales")], what="product")
    if bias is not None:
        e.add("Add", [product, bias], what="biased")


def _matmul_to_float(e: _Expansion) -> None:
    """(a, b, a_scale, b_scale, a_zero, b_zero, bias): zero points and bias may be left out."""
    _scaled(e, [e.input(i) for i in (0, 2, 4)], [e.input(i) for i in (1, 3, 5)], e.input(6))


def _dynamic_matmul(e: _Expansion) -> None:
    """(a, b, b_scale, b_zero, bias): a is real."""
    codes = e.add_several("DynamicQuantizeLinear", [e.input(0)], 3)
    _scaled(e, codes, [e.input(i) for i in (1, 2, 3)], e.input(4))


POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
EXPANSIONS: dict[tuple[str, str], Callable[[_Expansion], None]] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    (MICROSOFT, "QGemm"): _gemm,
    (MICROSOFT, "QLinearAdd"): _binary("Add"),
    (MICROSOFT, "QLinearMul"): _binary("Mul"),
    (MICROSOFT, "QLinearConcat"): _concat,
    (MICROSOFT, "QLinearAveragePool"): _unary("AveragePool", *POOL),
    (MICROSOFT, "QLinearGlobalAveragePool"): _global_average,
    (MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
    (MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu", "alpha"),
    (MICROSOFT, "QLinearSoftmax"): _softmax,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_to_float,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_matmul,
}
"""(domain, operator) → what takes its place."""


def expand(model: ir.Model) -> None:
    """Replaces every operator on codes in `model`. Raises ModelError, naming the node, at a form that has no such
    meaning."""
    for index, node in enumerate(list(model.graph)):
        make = EXPANSIONS.get((node.domain.removeprefix("ai.onnx"), node.op_type))
        if make is None:
            continue
        e = _Expansion(node, node.name or f"{node.op_type}_{index}", model.opset_imports.get("", 17))
        if _last_channels(node):
            raise ModelError(f"{e}: channels last; channels first would be accepted")
        make(e)
        old, new = node.outputs[0], e.nodes[-1].outputs[0]
        new.name, new.shape, new.type = old.name, old.shape, old.type
        model.graph.insert_before(node, e.nodes)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def _last_channels(node: ir.Node) -> bool:
    found = node.attributes.get("channels_last")
    return found is not None and bool(found.value)
