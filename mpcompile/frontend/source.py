"""A file to a graph: reading it, its inputs and outputs, the walk over its nodes, and the clean-up afterwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx.inliner import inline_local_functions

from mpcompile.errors import ModelError, UsageError
from mpcompile.frontend import (  # noqa: F401  (their handlers)
    axes,
    blocks,
    channels_last,
    contract,
    dynamic,
    elementwise,
    functions,
    integers,
    names,
    oncodes,
    picking,
    qdq,
    qonnx,
    rearrange,
    spatial,
    thresholds,
    transposed,
)
from mpcompile.frontend.batched_constants import one_row
from mpcompile.frontend.external import load_external
from mpcompile.frontend.floatop import check_known, float_op, fold
from mpcompile.frontend.halves import widen
from mpcompile.frontend.importer import (
    KNOWS_WHOLE,
    NO_FORM,
    QONNX_DOMAINS,
    Fallback,
    Importer,
    Source,
    array_of,
    handler_of,
)
from mpcompile.frontend.inference import check_outputs
from mpcompile.frontend.limits import check_elements, check_functions
from mpcompile.frontend.qdq import codes_in_float, of_layers
from mpcompile.frontend.qoperator import expand
from mpcompile.frontend.shapes import Shapes, fix_shapes, wanted
from mpcompile.frontend.values import Activation, Codes, Constant, IntegerInput
from mpcompile.ir.graph import FloatOp, Graph, Reshape, TensorType

logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # what it warns of is refused here, by a line of ours
BROKEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ir.serde.SerdeError)
"""What numpy, onnx, onnx-ir and Python raise at a node that breaks its operator's definition: nothing checked it before."""


INTEGERS = ("UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL")
"""Types that the graph holds in float32, of 32 and 64 bits up to 2^24, and that inputs and outputs may have."""
KNOWS_INTEGERS = frozenset(
    "Cast ConvInteger DequantizeLinear Dropout DynamicQuantizeLinear Identity MatMulInteger QuantizeLinear Shape".split()
)
"""Operators whose handlers take IntegerInput, or refuse it by name."""


def read(path: Path, shapes: Shapes) -> names.SourceFile:
    """See `mpcompile.frontend.load_source`."""
    try:
        return read_graph(path, shapes)
    except BROKEN as error:
        raise ModelError(f"{path} is damaged ({first_line(error)})") from error


def read_graph(path: Path, shapes: Shapes) -> names.SourceFile:
    """The same, with errors as they come."""
    model = open_model(path)
    fix_shapes(model, shapes)
    halves = widen(model)
    expand(model)
    graph = Graph(source=str(path))
    imp = Importer(model, graph)
    take_inputs(imp)
    for name, value in model.graph.initializers.items():
        imp.values[name] = Constant(data_of(value))
    for index, node in enumerate(list(model.graph)):
        name = imp.unique(node.name or f"{node.op_type}_{index}")
        if node.domain == channels_last.DOMAIN:
            rank = len(imp.shape(imp.value(Source(node, name), 0)))
            for made in channels_last.spread(node, name, rank):
                take_node(imp, Source(made, made.name or name))
        else:
            take_node(imp, Source(node, name))
    take_outputs(imp)
    drop_unread(graph)
    axes.flatten(imp)
    graph.check()
    inputs = {name: ir.DataType[imp.type_name(name)].numpy() for name in graph.inputs}
    return names.SourceFile(str(path), graph, names.file_tensors(imp), inputs, halves)


def open_model(path: Path) -> ir.Model:
    """The file's model, local functions inlined, external data loaded. Raises UsageError or ModelError."""
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}")
    try:
        model = ir.load(path)
        operators = sum(1 for _ in model.graph)
    except Exception as error:  # protobuf and onnx-ir raise many kinds at damaged bytes
        if "Sparse tensors are not supported" in str(root_of(error)):  # by onnx-ir
            raise ModelError(f"{path} holds a sparse tensor; a dense one would be accepted") from error
        raise ModelError(f"{path} is no ONNX file, or a damaged one ({first_line(error)})") from error
    if not operators and not model.graph.outputs:
        raise ModelError(f"{path} is no ONNX file, or an empty one: it has no nodes and no outputs")
    standard = any(node.domain in ("", "ai.onnx") for node in model.graph)
    if standard and "" not in model.opset_imports:
        raise ModelError(f"{path} is damaged: it names no opset of ONNX for its operators")
    newest, opset = onnx.defs.onnx_opset_version(), model.opset_imports.get("", None)
    if opset is not None and opset > newest:
        raise ModelError(
            f"{path} is of ONNX opset {opset}; up to {newest}, which onnx {onnx.__version__} knows, would be accepted"
        )
    if model.functions:
        check_functions(model, path)
        model = inlined(path)
    load_external(model, path)
    return model


def inlined(path: Path) -> ir.Model:
    """The model of a file, its functions in the place of their calls. By onnx's inliner: onnx-ir's takes time in the square
    of how often a function is called. Raises ModelError where it cannot be done."""
    try:
        return ir.from_proto(inline_local_functions(onnx.load(path, load_external_data=False)))
    except Exception as error:  # of C++, and what its result makes onnx-ir raise
        raise ModelError(
            f"{path} is damaged: its functions cannot be inlined ({first_line(root_of(error))})"
        ) from error


def data_of(initializer: ir.Value) -> np.ndarray:
    """Its values. Raises ModelError where the file also declares it, as an input say, of another type."""
    held = initializer.const_value
    if held is None:
        raise ValueError("there are none")
    if initializer.dtype is not None and initializer.dtype != held.dtype:
        raise ModelError(
            f"initializer {initializer.name} holds {held.dtype.name}, and is declared as {initializer.dtype.name}; one "
            "type would be accepted"
        )
    return array_of(held)


def name_of(value: ir.Value) -> str:
    return value.name or ""


def root_of(error: BaseException) -> BaseException:
    """The error that it began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def take_inputs(imp: Importer) -> None:
    """Model inputs become graph inputs, their axis 0 the batch. Raises ModelError at other dynamic axes and other
    types."""
    graph, batches = imp.graph, set()
    for value in imp.model.graph.inputs:
        name = name_of(value)
        if name in imp.model.graph.initializers:
            continue
        if name in graph.types:
            raise ModelError(f"two inputs are called {name}; a name for each would be accepted")
        if value.type is not None and not isinstance(value.type, ir.TensorType):
            raise ModelError(f"input {name} is no tensor, but {type(value.type).__name__}; a tensor would be accepted")
        kind = value.dtype.name if value.dtype else "of no known type"
        if kind != "FLOAT" and kind not in INTEGERS:
            raise ModelError(f"input {name} is {kind}; FLOAT, FLOAT16, {', '.join(INTEGERS)} would be accepted")
        if value.shape is None or not len(value.shape):
            raise ModelError(f"input {name} has no batch axis; a shape of at least one axis would be accepted")
        batch, *sizes = (d if isinstance(d, int) else None for d in value.shape)
        if batch == 0:
            raise ModelError(f"input {name} has a batch of 0; one of 1, or a dynamic one, would be accepted")
        dims: list[int] = []
        for axis, size in enumerate(sizes, 1):
            if size is None or size < 1:
                raise ModelError(
                    f"input {name} has a dynamic dimension {axis} ({value.shape[axis]}); fixed sizes, and a dynamic "
                    f"batch in dimension 0, would be accepted: {wanted(value)} would fix it"
                )
            dims.append(size)
        check_elements(f"input {name}", dims)
        batches.add(batch)
        graph.inputs.append(name)
        graph.types[name] = TensorType(tuple(dims))
        imp.set_type(name, kind)
        if kind != "FLOAT":
            graph.dtypes[name] = kind.lower()
        imp.values[name] = Activation(name) if kind == "FLOAT" else IntegerInput(name)
        imp.unique(name)
    if len(batches) > 1:
        raise ModelError(
            f"inputs with different batch sizes ({', '.join(map(str, batches))}); one for all would be accepted"
        )
    graph.batch = batches.pop() if batches else None


def take_node(imp: Importer, node: Source) -> None:
    """Folds a node over constants, hands it to its handler, or makes it a FloatOp."""
    handler = handler_of(node)
    standard = node.node.domain not in QONNX_DOMAINS
    if standard:
        check_known(imp, node)
    held = [imp.value(node, i) for i in range(node.count) if node.has(i)]
    if (
        standard
        and all(isinstance(v, Constant) for v in held)
        and (held or node.op_type == "Constant")
        and not node.op_type.endswith("quantizeLinear")
        and node.op_type != "QuantizeLinear"
    ):
        return fold(imp, node)
    try:
        with one_row(imp, node):
            if standard and oncodes.moves_codes(imp, node):
                oncodes.take(imp, node, lambda: read_node(imp, node, handler))
            else:
                read_node(imp, node, handler)
    except BROKEN as error:
        raise ModelError(f"{node}: its attributes or inputs do not fit its operator ({first_line(error)})") from error


def read_node(imp: Importer, node: Source, handler: Callable | None) -> None:
    """By its handler, or as a constant, or as a FloatOp."""
    made: object = NO_FORM
    if on_integers(imp, node):
        made = Fallback("it reads integers")
    elif on_whole(imp, node):
        made = Fallback("it reads a tensor whose axis 0 is not the batch")
    elif handler is not None:
        made = handler(imp, node)
    if not isinstance(made, Fallback):
        if node.node.domain in ("", "ai.onnx"):
            check_outputs(imp, node)
    elif (given := [i for i in range(node.count) if node.has(i)]) and all(imp.is_constant(node, i) for i in given):
        fold(imp, node)
    else:
        float_op(imp, node, made.reason)


def on_integers(imp: Importer, node: Source) -> bool:
    """Whether it reads integers and its handler knows real values only: then it runs as ONNX defines it."""
    if node.op_type in KNOWS_INTEGERS or node.node.domain not in ("", "ai.onnx"):
        return False
    return any(isinstance(imp.value(node, i), IntegerInput) for i in range(node.count) if node.has(i))


def on_whole(imp: Importer, node: Source) -> bool:
    """Whether it reads a tensor whose axis 0 is not the batch, which its handler does not know: then it runs as ONNX
    defines it."""
    if node.op_type in ("Cast", "Dropout", "Identity", "Shape") or node.node.domain not in ("", "ai.onnx"):
        return False
    read = [imp.value(node, i) for i in range(node.count) if node.has(i)]
    if not any(isinstance(v, (Activation, Codes, IntegerInput)) and v.tensor in imp.whole for v in read):
        return False
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return not of_layers(imp, node)
    return node.op_type not in KNOWS_WHOLE or any(isinstance(v, IntegerInput) for v in read)


def take_outputs(imp: Importer) -> None:
    """Model outputs keep their names: an alias is renamed, and what has another name already gets a Reshape that
    copies."""
    graph = imp.graph
    names = dict.fromkeys(name_of(v) for v in imp.model.graph.outputs)
    for name in names:
        held = imp.values.get(name)
        if isinstance(held, Codes):
            held = IntegerInput(codes_in_float(imp, name, held))
        if not isinstance(held, (Activation, IntegerInput)):
            raise ModelError(
                f"the model's output {name} is a constant; a tensor that depends on an input would be accepted"
            )
        if held.tensor in imp.whole:
            raise ModelError(f"the model's output {name} has no batch in axis 0; one that has would be accepted")
        graph.outputs.append(name)
        if isinstance(held, IntegerInput):
            kind = imp.type_name(name)
            if kind not in INTEGERS:
                raise ModelError(
                    f"output {name} is {kind or 'of no known type'}; FLOAT, {', '.join(INTEGERS)} would be accepted"
                )
            graph.dtypes[name] = kind.lower()
        if held.tensor == name:
            continue
        if held.tensor in graph.inputs or held.tensor in names:
            kind = graph.types[held.tensor]
            imp.emit(
                Reshape(imp.unique(f"{name}.copy"), [held.tensor], [name], kind.shape),
                kind.shape,
                kind.quantizer,
            )
        else:
            rename(imp, held.tensor, name)


def rename(imp: Importer, old: str, new: str) -> None:
    """Everywhere in the graph, and for outputs still to come."""
    graph = imp.graph
    graph.types[new] = graph.types.pop(old)
    for node in graph.nodes:
        if old in node.inputs or old in node.outputs:
            if isinstance(node, FloatOp):
                node.model = renamed_model(node.model, old, new)
            node.inputs = [new if t == old else t for t in node.inputs]
            node.outputs = [new if t == old else t for t in node.outputs]
    for name, held in imp.values.items():
        if isinstance(held, Activation) and held.tensor == old:
            imp.values[name] = Activation(new, held.on_grid)
        elif isinstance(held, IntegerInput) and held.tensor == old:
            imp.values[name] = replace(held, tensor=new)


def renamed_model(model: bytes, old: str, new: str) -> bytes:
    proto = onnx.ModelProto.FromString(model)
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = new if value.name == old else value.name
    for node in proto.graph.node:
        node.input[:] = [new if t == old else t for t in node.input]
        node.output[:] = [new if t == old else t for t in node.output]
    return proto.SerializeToString()


def drop_unread(graph: Graph) -> None:
    """Removes nodes whose outputs nobody reads, and types of tensors that are gone."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    graph.nodes = kept[::-1]
    present = {t for n in graph.nodes for t in n.outputs} | set(graph.inputs)
    graph.types = {t: k for t, k in graph.types.items() if t in present}
