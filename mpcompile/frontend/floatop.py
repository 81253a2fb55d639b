"""Single-node ONNX models: how an operator without a node type of its own runs, how constants fold, how shapes are
found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from mpcompile.errors import ModelError
from mpcompile.frontend.batch import check_samples_apart
from mpcompile.frontend.contract import window
from mpcompile.frontend.importer import Importer, Source
from mpcompile.frontend.inference import inferred
from mpcompile.frontend.limits import MOST_FOLDED, check_elements
from mpcompile.frontend.values import Activation, Codes, Constant, IntegerInput, QuantizedConstant
from mpcompile.ir.graph import FloatOp, Quantizer, TensorType

MODERN = 17
"""Older forms of operators are converted to this opset before TVM sees them."""


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
) -> onnx.ModelProto:
    """The node as a model of its own, float32 inputs of these shapes; outputs untyped."""
    proto = ir.serde.serialize_node(node.node)
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in inputs.items()],
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
    try:
        results = ReferenceEvaluator(model).run(None, {})
    except Exception as error:  # the evaluator raises whatever its operators do
        raise ModelError(f"{node}: does not compute ({str(error).splitlines()[0]})") from error
    for name, result in zip(node.outputs, results):
        imp.values[name] = Constant(np.asarray(result))


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
        return onnx.version_converter.convert_version(model, MODERN)
    except Exception as error:  # the converter's C++ raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{node}: of ONNX opset {model.opset_import[0].version}, and onnx does not convert it ({reason}); a model of "
            f"opset {MODERN} or later would be accepted"
        ) from error


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


def float_op(imp: Importer, node: Source) -> None:
    """Appends a FloatOp. Raises ModelError where an output is not float32, has no fixed shape, or mixes the batch."""
    constants, inputs = {}, {}
    rename = {}
    for i in range(node.count):
        if not node.has(i):
            continue
        held, name = imp.value(node, i), node.input_name(i)
        if isinstance(held, (Codes, IntegerInput)):
            raise ModelError(f"{node}: reads integer codes; DequantizeLinear in front would be accepted")
        if isinstance(held, Activation):
            rename[name] = held.tensor
            inputs[held.tensor] = imp.shape(held)
        else:
            constants[name] = as_array(held)
    if not inputs:
        raise ModelError(f"{node}: an output that depends on no input and is no constant; a Constant would be accepted")
    outputs = [o for o in node.outputs if o]
    model = single_node(imp, node, constants, inputs, outputs)
    proto = model.graph.node[0]
    proto.input[:] = [rename.get(n, n) for n in proto.input]
    resolve_auto_pad(imp, node, proto)
    try:
        shapes = inferred(model)
        twice = onnx.ModelProto.FromString(model.SerializeToString())
        for value in twice.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 2
        double = inferred(twice) if imp.graph.batch != 1 else [(kind, (2,)) for kind, _ in shapes]
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{node}: its shapes do not fit ({str(error).splitlines()[-1].strip()})") from error
    kinds = []
    for (kind, shape), (_, second), name in zip(shapes, double, outputs):
        if kind != onnx.TensorProto.FLOAT:
            raise ModelError(f"{node}: writes {onnx.TensorProto.DataType.Name(kind)}; FLOAT would be accepted")
        if shape is None:
            raise ModelError(f"{node}: the shape of its output {name} depends on data; a fixed one would be accepted")
        if not shape or shape[0] != 1 or not second or second[0] != 2:
            raise ModelError(f"{node}: it mixes the batch (axis 0); one that leaves axis 0 alone would be accepted")
        kinds.append((kind, shape))
    if imp.graph.batch != 1:  # where the file fixes it, there never is another sample
        check_samples_apart(node, model, inputs)
    model = modern(node, model)
    for value, (kind, shape) in zip(model.graph.output, kinds):
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kind, shape))
    for (_, shape), name in zip(kinds, outputs):
        imp.graph.types[name] = TensorType(shape[1:])
        imp.values[name] = Activation(name, kept_grid(imp, node))
    imp.graph.nodes.append(FloatOp(node.name, list(inputs), outputs, node.op_type, model.SerializeToString()))
