"""The walk over an ONNX graph: one handler per operator turns each node into nodes of the normalised graph.

Handlers live in the other modules of this folder and register themselves with @operator. A handler that meets a form of
its operator which the normalised graph has no node for returns a Fallback, which says why; the node then runs in float
(see floatop.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from mpcompile.errors import ModelError
from mpcompile.frontend.limits import MOST_PARTS, check_elements
from mpcompile.frontend.values import Activation, Codes, Constant, IntegerInput, QuantizedConstant, Value
from mpcompile.ir.graph import Clip, Graph, Node, Quantize, Quantizer, TensorType

MICROSOFT = "com.microsoft"
"""Where ONNX Runtime's quantizer puts QuantizeLinear and DequantizeLinear of types that ONNX got only later (4 and 16 bits
below opset 21); they mean what those of ai.onnx do."""
QONNX_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")


@dataclass(frozen=True)
class Fallback:
    """What a handler returns of a node that is to run in float. `reason`: why, a clause about "it"."""

    reason: str


NO_FORM = Fallback("it has no form on integers")
"""Of an operator without a handler."""
UNQUANTIZED = Fallback("its input is on no grid")
KNOWS_WHOLE = frozenset(
    "BipolarQuant Clip DequantizeLinear Gemm IntQuant MatMul Quant QuantizeLinear Relu Reshape Squeeze Unsqueeze".split()
)
"""Operators whose handlers take tensors whose axis 0 is not the batch (Importer.whole)."""
_HANDLERS: dict[tuple[bool, str], Callable] = {}


def operator(*op_types: str, qonnx: bool = False):
    """Registers handler(importer, source) for these operators, of ai.onnx or, with `qonnx`, of QONNX's domains."""

    def register(handler):
        for op in op_types:
            _HANDLERS[qonnx, op] = handler
        return handler

    return register


def array_of(tensor) -> np.ndarray:
    """A tensor's values. Raises ValueError where its data are not those of its type, ModelError where they are too many."""
    check_elements(f"constant {tensor.name}", tensor.shape.numpy())  # onnx-ir would make room for what a header says
    try:
        return tensor.numpy()
    except AssertionError as error:  # onnx-ir's, of data in the field of another type
        raise ValueError(str(error) or "its data are of another type") from error


class Source:
    """A source node, as handlers read it; as a string it begins every message: node NAME (OPERATOR)."""

    def __init__(self, node: ir.Node, name: str):
        self.node, self.name, self.op_type = node, name, node.op_type
        self.outputs = [v.name or "" for v in node.outputs]
        """Their names; "" for one that is left out."""
        self.count = len(node.inputs)

    def __str__(self) -> str:
        return f"node {self.name} ({self.op_type})"

    def attribute(self, name: str, default: Any) -> Any:
        """Its value as Python or numpy; `default` where the node has none. Raises ValueError where it is of another kind
        than `default` (an integer, a number, a text, a list)."""
        found = self.node.attributes.get(name)
        if found is None:
            return default
        if found.type == ir.AttributeType.TENSOR:
            return array_of(found.value)
        value = list(found.value) if isinstance(found.value, (tuple, list)) else found.value
        kinds = ((int, int, "an integer"), (float, int | float, "a number"), (str, str, "a text"))
        for kind, taken, what in (*kinds, (list | tuple, list, "a list")):
            if isinstance(default, kind) and not isinstance(value, taken):
                raise ValueError(f"{name} is no {what.split()[1]}; {what} would be accepted")
        return value

    def has(self, index: int) -> bool:
        return index < self.count and self.node.inputs[index] is not None

    def input(self, index: int) -> ir.Value:
        """What input `index` is called and typed in the file. Raises IndexError or ValueError where it has none."""
        value = self.node.inputs[index]
        if value is None:
            raise ValueError(f"it lacks input {index}")
        return value

    def input_name(self, index: int) -> str:
        return self.input(index).name or ""

    def uses(self, index: int) -> int:
        """How many readers output `index` has, the model's outputs included."""
        value = self.node.outputs[index]
        return len(value.uses()) + value.is_graph_output()


class Quantized(NamedTuple):
    """What a contraction reads: a quantized tensor (or a concat of such), times `factor` (float64 [1] or [C]), zeros `pads`
    (before, after) around it."""

    tensor: str
    factor: np.ndarray
    pads: tuple[tuple[int, int], ...]


class Importer:
    """State of one import: what every ONNX name stands for, and the graph so far."""

    def __init__(self, model: ir.Model, graph: Graph):
        self.model, self.graph = model, graph
        self.opset = model.opset_imports.get("", 17)
        self.values: dict[str, Value] = {}
        self.writers: dict[str, Node] = {}
        """Graph tensor → the node that writes it."""
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}
        """Name → the number to try next where it is taken."""
        self.ranges: dict[str, tuple[float, float]] = {}
        """Graph tensor → least and greatest real value (ranges.py)."""
        self._parts: dict[str, list[str] | None] = {}
        """Concat of tensors on different grids → these, through Concats of Concats."""
        self._dtypes: dict[str, str] = {}
        self.whole: set[str] = set()
        """Graph tensors that stand for one whose axis 0 is not the batch, in a file whose batch is 1: all its axes are in
        their shape."""
        self.moved: dict[str, Any] = {}
        """Value → which elements of a Concat it holds (moved.Moved)."""
        self.padded: dict[str, tuple[Activation, tuple[tuple[int, int], ...]]] = {}
        """Output of a Pad by zeros → what it pads, and (before, after) per spatial axis."""

    # -- reading -----------------------------------------------------------------------------------------------
    def value(self, node: Source, index: int) -> Value:
        """What input `index` stands for."""
        name = node.input_name(index)
        if name not in self.values:
            raise ModelError(f"{node}: reads {name}, which nothing before it writes")
        return self.values[name]

    def optional(self, node: Source, index: int) -> Value | None:
        return self.value(node, index) if node.has(index) else None

    def is_constant(self, node: Source, index: int) -> bool:
        return node.has(index) and isinstance(self.value(node, index), (Constant, QuantizedConstant))

    def constant(self, node: Source, index: int, what: str, integer: bool = False) -> np.ndarray:
        """A constant input: float32 (float64 stays) or, with `integer`, as it is. Raises ModelError where it is
        none."""
        value = self.optional(node, index)
        if isinstance(value, QuantizedConstant):
            return value.real().astype(np.float32)
        if not isinstance(value, Constant):
            raise ModelError(f"{node}: its {what} is computed at run time or missing; a constant would be accepted")
        array = value.array
        return array if integer or array.dtype == np.float64 else array.astype(np.float32)

    def real_constant(self, node: Source, index: int) -> np.ndarray | None:
        """float64 values of a constant input, else None."""
        value = self.optional(node, index)
        if isinstance(value, QuantizedConstant):
            return value.real()
        return value.array.astype(np.float64) if isinstance(value, Constant) else None

    def shape(self, value: Value) -> tuple[int, ...]:
        """Its ONNX shape; activations with batch 1 in front."""
        if isinstance(value, Constant):
            return value.array.shape
        if isinstance(value, QuantizedConstant):
            return value.u.shape
        shape = self.graph.types[value.tensor].shape
        return shape if value.tensor in self.whole else (1, *shape)

    def dtype(self, node: Source, index: int) -> str:
        """The ONNX element type of input `index`, as a name; "" where neither the file nor a constant says it."""
        value = node.input(index)
        return value.dtype.name if value.dtype else self.type_name(value.name or "")

    def type_name(self, name: str) -> str:
        """The element type of what was read under a name, where the file does not say it."""
        if name in self._dtypes:
            return self._dtypes[name]
        held = self.values.get(name)
        return ir.DataType.from_numpy(held.array.dtype).name if isinstance(held, Constant) else ""

    def set_type(self, name: str, dtype: str) -> None:
        """What `type_name` answers."""
        self._dtypes[name] = dtype

    @staticmethod
    def dtype_name(number: int) -> str:
        return ir.DataType(number).name if number else ""

    def tensor(self, node: Source, index: int) -> str:
        """The graph tensor that input `index` stands for. Raises ModelError where it is a constant or codes."""
        return self.activation(node, index).tensor

    def activation(self, node: Source, index: int) -> Activation:
        """The same, with what is known of it."""
        value = self.value(node, index)
        if isinstance(value, Activation):
            if value.tensor in self.whole and node.op_type not in KNOWS_WHOLE:
                raise ModelError(f"{node}: input {index} has no batch in axis 0; one that has would be accepted")
            return value
        what = "integer codes" if isinstance(value, (Codes, IntegerInput)) else "a constant"
        raise ModelError(f"{node}: input {index} is {what}; a float32 tensor would be accepted")

    def type(self, tensor: str) -> TensorType:
        return self.graph.types[tensor]

    # -- writing -----------------------------------------------------------------------------------------------
    def unique(self, name: str) -> str:
        """`name`, or it with a number where it is taken already."""
        found, number = name, self._numbers.get(name, 1)
        while found in self._names:
            found, number = f"{name}.{number}", number + 1
        self._names.add(found)
        self._numbers[name] = number
        return found

    def define(self, node: Source, value: Value, dtype: str = "") -> None:
        """Output 0 of `node` stands for `value`."""
        self.values[node.outputs[0]] = value
        if dtype:
            self._dtypes[node.outputs[0]] = dtype

    def emit(self, node: Node, shape: tuple[int, ...] | None = None, quantizer: Quantizer | None = None) -> str:
        """Appends a node with one output, typed; `shape` is the input's unless given. Returns the output's name."""
        output = node.outputs[0]
        check_elements(f"node {node.name} ({node.op})", self.type(node.inputs[0]).shape if shape is None else shape)
        self.graph.types[output] = TensorType(self.type(node.inputs[0]).shape if shape is None else shape, quantizer)
        self.graph.nodes.append(node)
        self.writers[output] = node
        if isinstance(node, (Clip, Quantize)) and node.inputs[0] in self.whole:
            self.whole.add(output)
        self.mixed_parts(output)
        return output

    def write(
        self, node: Source, made: Node, shape: tuple[int, ...] | None = None, quantizer: Quantizer | None = None
    ) -> None:
        """`emit`, and output 0 of `node` stands for what was emitted."""
        self.define(node, Activation(self.emit(made, shape, quantizer)))

    def quantize(self, node: Source, tensor: str, quantizer: Quantizer) -> None:
        """A Quantize of `tensor`; nothing where it lies on that very grid already."""
        present = self.type(tensor).quantizer
        if present and (present.grid, present.spacing) == (quantizer.grid, quantizer.spacing):
            return self.define(node, Activation(tensor))
        self.write(node, Quantize(node.name, [tensor], [node.outputs[0]], quantizer), None, quantizer)

    def quantized(
        self, node: Source, index: int, through_pad: bool = False, per_channel: bool = False
    ) -> Quantized | None:
        """Input `index` as a quantized tensor, or None where it is on no grid. `through_pad` looks through a Pad by
        zeros; without `per_channel`, a tensor whose factor differs between channels is on none."""
        value, pads = self.value(node, index), ()
        if through_pad:
            value, pads = self.padded.get(node.input_name(index), (value, ((0, 0),) * (len(self.shape(value)) - 2)))
        if not isinstance(value, Activation):
            return None
        if value.scaled:
            return Quantized(*value.scaled, pads) if per_channel or value.scaled[1].size == 1 else None
        if value.on_grid:
            return Quantized(self.requantized(value.tensor, value.on_grid), np.ones(1), pads)
        known = self.type(value.tensor).quantizer or self.mixed_parts(value.tensor)
        return Quantized(value.tensor, np.ones(1), pads) if known else None

    def not_quantized(self, node: Source, index: int, what: str) -> Fallback:
        """Why `quantized` finds input `index` on no grid. `what` it is called."""
        value = self.value(node, index)
        if isinstance(value, Activation) and value.scaled:
            return Fallback(f"{what} has a scale for each channel")
        return Fallback(f"{what} is not quantized")

    def requantized(self, tensor: str, quantizer: Quantizer) -> str:
        """A float tensor of values on a grid as a quantized tensor: a Quantize, once for all its readers."""
        name = f"{tensor}.on_grid"
        if name not in self.writers:
            self.emit(Quantize(name, [tensor], [name], quantizer), None, quantizer)
        return name

    def mixed_parts(self, tensor: str) -> list[str] | None:
        """Where `tensor` is a Concat of quantized tensors whose grids differ: these tensors, through Concats of
        Concats."""
        writer = self.writers.get(tensor)
        if writer is None or writer.op != "Concat" or self.type(tensor).quantizer:
            return None
        if tensor not in self._parts:  # an input's are known: they were asked for when it was written
            found: list[str] | None = []
            for t in writer.inputs:
                more = [t] if self.type(t).quantizer else self._parts.get(t)
                found = None if found is None or more is None else found + more
            if found and len(found) > MOST_PARTS:
                raise ModelError(
                    f"node {writer.name} (Concat): {len(found)} tensors side by side; up to {MOST_PARTS} would be accepted"
                )
            self._parts[tensor] = found
        return self._parts[tensor]


def handler_of(node: Source) -> Callable | None:
    """The handler of a node, or None. Raises ModelError at an operator of an unknown domain."""
    domain = node.node.domain
    if domain in ("", "ai.onnx") or (domain == MICROSOFT and node.op_type in ("QuantizeLinear", "DequantizeLinear")):
        return _HANDLERS.get((False, node.op_type))
    found = _HANDLERS.get((True, node.op_type)) if domain in QONNX_DOMAINS else None
    if found is None:
        raise ModelError(
            f"{node}: an operator of domain {domain} that is not known; ai.onnx, and "
            f"{', '.join(sorted(op for q, op in _HANDLERS if q))} of QONNX would be accepted"
        )
    return found
