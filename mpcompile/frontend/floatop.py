"""Single-node ONNX models: how an operator without a node type of its own runs, how constants fold, how shapes are
found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from mpcompile.errors import ModelError
from mpcompile.frontend.batch import check_samples_apart
from mpcompile.frontend.importer import Fallback, Importer, Source
from mpcompile.frontend.inference import inferred
from mpcompile.frontend.limits import MOST_FOLDED, check_elements
from mpcompile.frontend.values import Activation, Codes, Constant, IntegerInput, QuantizedConstant
from mpcompile.frontend.windows import window
from mpcompile.ir.graph import FloatOp, Quantizer, TensorType

MODERN = 17
"""Older forms of operators are converted to this opset before TVM sees them."""


WRITTEN = tuple(onnx.TensorProto.DataType.Value(t) for t in "FLOAT BOOL UINT8 INT8 UINT16 INT16 INT32 INT64".split())
"""Element types that an operator may write: float32 holds their values, of 32 and 64 bits up to 2^24."""
INDEXED = ("Gather", "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND")
MANY = 99_991
"""Samples for which a free batch is tried: a Slice of the first ten must not pass for one that keeps them all."""

PICKING = ("DepthToSpace", "SpaceToDepth", "Slice", "Split", "Gather", "Tile")
"""Operators that compute nothing: every value of their output is one of input 0."""


def as_array(value: Constant | QuantizedConstant) -> np.ndarray:
    return value.array if isinstance(value, Constant) else value.real().astype(np.float32)


def single_node(
    imp: Importer,
    node: Source,
    constants: dict[str, np.ndarray],
    inputs: dict[str, tuple[int, ...]],
    outputs: list[str],
    kinds: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """The node as a model of its own; inputs of these shapes, float32 unless `kinds` has another of ONNX's element types
    for one; outputs untyped."""
    proto = ir.serde.serialize_node(node.node)
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [
            onnx.helper.make_tensor_value_info(n, (kinds or {}).get(n, onnx.TensorProto.FLOAT), s)
            for n, s in inputs.items()
        ],
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a, order="C"), n) for n, a in constants.items()],
    )
    version = max(4, imp.model.ir_version)  # below 4 an initializer would have to be an input too
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", imp.opset)], ir_version=version)


def check_known(imp: Importer, node: Source) -> None:
    """Raises ModelError at an ai.onnx operator that the installed onnx does not define at this opset, or not with
    attributes of these types."""
    try:
        schema = onnx.defs.get_schema(node.op_type, imp.opset, "")
    except onnx.defs.SchemaError:
        raise ModelError(
            f"{node}: no operator of ONNX opset {imp.opset}; those that onnx {onnx.__version__} knows would be accepted"
        ) from None
    for name, found in node.node.attributes.items():
        wanted = str(schema.attributes[name].type).rpartition(".")[2] if name in schema.attributes else found.type.name
        if found.type.name != wanted:
            raise ModelError(f"{node}: its attribute {name} is {found.type.name}; {wanted} would be accepted")
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.node.attributes.values()):
        raise ModelError(f"{node}: control flow; a graph without subgraphs would be accepted")


def fold(imp: Importer, node: Source) -> None:
    """Every input is constant: so is every output."""
    held = {node.input_name(i): imp.value(node, i) for i in range(node.count) if node.has(i)}
    constants = {name: as_array(v) for name, v in held.items() if isinstance(v, (Constant, QuantizedConstant))}
    model = single_node(imp, node, constants, {}, node.outputs)
    try:
        for _, shape in inferred(model):
            check_elements(node, shape or (), MOST_FOLDED)
    except onnx.shape_inference.InferenceError:
        pass  # the evaluator says it better
    results = evaluated(model, {})
    if isinstance(results, Fallback):
        raise ModelError(f"{node}: {results.reason}")
    for name, result in zip(node.outputs, results):
        imp.values[name] = Constant(np.asarray(result))


def evaluated(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list | Fallback:
    """What onnx's own evaluator computes for each output of a model, or why it computes nothing."""
    try:
        return list(ReferenceEvaluator(model).run(None, feed))
    except Exception as error:  # the evaluator raises whatever its operators do
        return Fallback(f"does not compute ({(str(error).strip().splitlines() or [type(error).__name__])[0]})")


def resolve_auto_pad(imp: Importer, node: Source, proto: onnx.NodeProto) -> None:
    """SAME_UPPER and SAME_LOWER of a Conv or pool to explicit pads: shape inference and TVM want those."""
    if node.attribute("auto_pad", "NOTSET") not in ("SAME_UPPER", "SAME_LOWER") or node.op_type == "ConvTranspose":
        return
    kernel = node.attribute("kernel_shape", None) or imp.shape(imp.value(node, 1))[2:]
    _, pads, _ = window(node, imp.shape(imp.value(node, 0))[2:], tuple(kernel))
    kept = [a for a in proto.attribute if a.name not in ("auto_pad", "pads")]
    del proto.attribute[:]
    proto.attribute.extend([*kept, onnx.helper.make_attribute("pads", [p[0] for p in pads] + [p[1] for p in pads])])


def check_node(model: onnx.ModelProto) -> None:
    """Raises onnx's ValidationError where the one node of a model is not what its operator's schema says: the converter
    would read what is not there."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {"": model.opset_import[0].version}
    onnx.checker.check_node(model.graph.node[0], context)


def modern(node: Source, model: onnx.ModelProto) -> onnx.ModelProto:
    """The node's model in the opset that TVM's importer is made for, by onnx's converter: attributes of an old Slice or
    Upsample became inputs. It may be several nodes then. Raises ModelError where the converter cannot."""
    if model.opset_import[0].version >= MODERN:
        return model
    try:
        check_node(model)
        return _as_before(node, model, onnx.version_converter.convert_version(model, MODERN))
    except Exception as error:  # the converter's C++ raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{node}: of ONNX opset {model.opset_import[0].version}, and onnx does not convert it ({reason}); a model of "
            f"opset {MODERN} or later would be accepted"
        ) from error


def _as_before(node: Source, model: onnx.ModelProto, converted: onnx.ModelProto) -> onnx.ModelProto:
    """With the coordinates of an Upsample, or a Resize of opset 10, which the converter leaves to the newer default."""
    if node.op_type in ("Upsample", "Resize") and model.opset_import[0].version < 11:
        wanted = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        for made in converted.graph.node:
            if made.op_type == "Resize":
                kept = [a for a in made.attribute if a.name not in wanted]
                del made.attribute[:]
                made.attribute.extend([*kept, *(onnx.helper.make_attribute(*each) for each in wanted.items())])
    return converted


def emit_nodes(
    imp: Importer,
    name: str,
    op_type: str,
    nodes: list[onnx.NodeProto],
    inputs: Sequence[str],
    outputs: dict[str, tuple[int, ...]],
    constants: dict[str, np.ndarray],
) -> None:
    """Appends one FloatOp that computes `nodes`, operators of opset MODERN over the graph's tensors `inputs`. `outputs`:
    name → shape, batch 1 in front. Names of `nodes` that are neither are changed, so that they may be any."""
    outside = {*inputs, *outputs}

    def inner(tensor: str) -> str:
        return tensor if tensor in outside else f"mpcompile.{op_type}.{tensor}"

    for node in nodes:
        node.input[:] = [inner(t) for t in node.input]
        node.output[:] = [inner(t) for t in node.output]
    ports = [
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in some.items()]
        for some in ({n: (1, *imp.type(n).shape) for n in inputs}, outputs)
    ]
    held = [onnx.numpy_helper.from_array(np.asarray(a, order="C"), inner(n)) for n, a in constants.items()]
    graph = onnx.helper.make_graph(nodes, "nodes", ports[0], ports[1], held)
    opsets = [onnx.helper.make_opsetid("", MODERN)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=max(4, imp.model.ir_version))
    made = FloatOp(imp.unique(name), list(inputs), list(outputs), op_type, model.SerializeToString())
    for output, shape in outputs.items():
        check_elements(f"node {name} ({op_type})", shape[1:])
        imp.graph.types[output] = TensorType(shape[1:])
        imp.writers[output] = made
    imp.graph.nodes.append(made)


def lead_by_one(model: onnx.ModelProto, port: onnx.ValueInfoProto) -> None:
    """Gives an input or output a first axis of 1, which is not there inside of the model: every tensor between operators
    has a batch axis."""
    inner, outer = f"mpcompile.whole.{port.name}", port.name
    dims = [d.dim_value for d in port.type.tensor_type.shape.dim]
    entering = any(value.name == outer for value in model.graph.input)
    for node in model.graph.node:
        node.input[:] = [inner if t == outer else t for t in node.input]
        node.output[:] = [inner if t == outer else t for t in node.output]
    shape = np.array(dims if entering else [1, *dims], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(shape, f"{inner}.shape"))
    ends = ([outer, f"{inner}.shape"], [inner]) if entering else ([inner, f"{inner}.shape"], [outer])
    reshape = onnx.helper.make_node("Reshape", *ends)
    model.graph.node.insert(0 if entering else len(model.graph.node), reshape)
    port.CopyFrom(onnx.helper.make_tensor_value_info(outer, port.type.tensor_type.elem_type, [1, *dims]))


def guard_indices(imp: Importer, node: Source, model: onnx.ModelProto) -> None:
    """Keeps indices that are computed at run time within the axis that they pick from: kernels do not check their bounds.
    Raises ModelError at operators whose indices are not of one axis."""
    if node.op_type not in INDEXED or imp.is_constant(node, 1):
        return
    if node.op_type not in ("Gather", "GatherElements"):
        raise ModelError(f"{node}: indices that are computed at run time; constants would be accepted")
    shape = imp.shape(imp.value(node, 0))
    size, index = shape[node.attribute("axis", 0)], model.graph.node[0].input[1]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(ir.DataType[imp.dtype(node, 1)].value)
    ends = {"mpcompile.first": -size, "mpcompile.last": size - 1}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.array(n, dtype), name) for name, n in ends.items())
    model.graph.node[0].input[1] = "mpcompile.inside"
    model.graph.node.insert(0, onnx.helper.make_node("Clip", [index, *ends], ["mpcompile.inside"]))


def kept_grid(imp: Importer, node: Source) -> Quantizer | None:
    """The quantizer of input 0 where the operator only picks from its values."""
    value = imp.value(node, 0)
    quantizer = imp.type(value.tensor).quantizer if isinstance(value, Activation) else None
    if quantizer is None:
        return None
    picks = node.op_type in PICKING
    if node.op_type == "Resize" and node.attribute("mode", "nearest") == "nearest":
        picks = node.attribute("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize"
    return replace(quantizer, rounding="half_even", zero_first=True) if picks else None


def joins_samples_alike(imp: Importer, node: Source) -> bool:
    """Whether it is a Concat within each sample: of what is constant it has the row of one (batched_constants.py, or an
    Expand to the shape of an input whose batch is free), so that as it is it cannot be tried with several."""
    return node.op_type == "Concat" and node.attribute("axis", 1) % len(imp.shape(imp.value(node, 0))) != 0


def float_op(imp: Importer, node: Source, reason: str) -> None:
    """Appends a FloatOp, for that reason. Its model declares integers as such; outside of it they lie in float32. Raises
    ModelError where an output is of a type that float32 does not stand for, has no fixed shape, or mixes the batch."""
    constants, inputs, types = {}, {}, {}
    rename = {}
    for i in range(node.count):
        if not node.has(i):
            continue
        held, name = imp.value(node, i), node.input_name(i)
        if isinstance(held, Codes):
            raise ModelError(f"{node}: reads integer codes; DequantizeLinear in front would be accepted")
        if isinstance(held, IntegerInput):
            types[held.tensor] = ir.DataType[imp.dtype(node, i)].value
        if isinstance(held, (Activation, IntegerInput)):
            rename[name] = held.tensor
            inputs[held.tensor] = imp.shape(held)
        else:
            constants[name] = as_array(held)
    if not inputs:
        raise ModelError(f"{node}: an output that depends on no input and is no constant; a Constant would be accepted")
    outputs = [o for o in node.outputs if o]
    model = single_node(imp, node, constants, inputs, outputs, types)
    proto = model.graph.node[0]
    proto.input[:] = [rename.get(n, n) for n in proto.input]
    resolve_auto_pad(imp, node, proto)
    try:
        shapes = inferred(model)
        many = 1 if joins_samples_alike(imp, node) else imp.graph.batch or MANY
        several = onnx.ModelProto.FromString(model.SerializeToString())
        for value in several.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = many
        others = inferred(several) if many > 1 else shapes
    except onnx.shape_inference.InferenceError as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{node}: its shapes do not fit ({said[-1].strip()})") from error
    kinds = []
    for (kind, shape), (_, second), name in zip(shapes, others, outputs):
        if kind not in WRITTEN:
            raise ModelError(
                f"{node}: writes {onnx.TensorProto.DataType.Name(kind)}; FLOAT, BOOL and integers of up to 64 bits would "
                "be accepted"
            )
        if shape is None:
            raise ModelError(f"{node}: the shape of its output {name} depends on data; a fixed one would be accepted")
        if imp.graph.batch != 1 and (not shape or shape[0] != 1 or not second or second[0] != many):
            raise ModelError(f"{node}: it mixes the batch (axis 0); one that leaves axis 0 alone would be accepted")
        if 0 in shape:
            raise ModelError(f"{node}: its output {name} has no values; a tensor of some would be accepted")
        kinds.append((kind, shape))
    if many > 1:  # where the file fixes it to 1, there never is another sample
        check_samples_apart(node, model, inputs)
    model = modern(node, model)
    guard_indices(imp, node, model)
    for value, (kind, shape) in zip(model.graph.output, kinds):
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))
    imp.whole.update(name for (_, shape), name in zip(kinds, outputs) if shape[:1] != (1,))
    for value in (*model.graph.input, *model.graph.output):
        if value.name in imp.whole:
            lead_by_one(model, value)
    for (kind, shape), name in zip(kinds, outputs):
        imp.graph.types[name] = TensorType(shape if name in imp.whole else shape[1:])
        real = kind == onnx.TensorProto.FLOAT
        imp.values[name] = Activation(name, kept_grid(imp, node)) if real else IntegerInput(name)
        imp.set_type(name, onnx.TensorProto.DataType.Name(kind))
    made = FloatOp(node.name, list(inputs), outputs, node.op_type, model.SerializeToString(), reason)
    imp.graph.nodes.append(made)
