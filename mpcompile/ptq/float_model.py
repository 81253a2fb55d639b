"""A float ONNX file, ready to be quantized: read, checked, constants and BatchNorms folded, shapes known."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from mpcompile.errors import ModelError
from mpcompile.frontend import load
from mpcompile.frontend.importer import QONNX_DOMAINS
from mpcompile.frontend.shapes import fix_shapes
from mpcompile.frontend.source import open_model
from mpcompile.latency import onnxruntime
from mpcompile.temporary import temporary_folder

OPSET = 17
"""Older files are brought to this opset: fake quantizers are made of operators in their newer form."""

LAYER_FUSIONS = "ConvBNFusion", "MatMul_BatchNormalization_Fusion", "MatMulAddFusion"
"""ONNX Runtime's names of what folds BatchNorms, and takes the axes of rows apart."""


@dataclass(frozen=True)
class Port:
    """A model input: its shape, the batch in front (None where it is free), and numpy's type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype

    @property
    def batch(self) -> int | None:
        return self.shape[0]


@dataclass(frozen=True)
class FloatModel:
    """`proto`: of standard operators, every node named. `constants`: its initializers by name. `shapes`: of each tensor
    whose shape is known, as in Port."""

    path: Path
    proto: onnx.ModelProto
    inputs: dict[str, Port]
    constants: dict[str, np.ndarray]
    shapes: dict[str, tuple[int | None, ...]]

    @property
    def outputs(self) -> list[str]:
        return [o.name for o in self.proto.graph.output]


def read_float(
    path: str | os.PathLike, shapes: Mapping[str, Sequence[int]] | None = None, fuse_layers: bool = True
) -> FloatModel:
    """Reads a float model. `shapes`: input → its shape, batch in front, where the file leaves sizes open. `fuse_layers`:
    whether BatchNorms go into the weights before them, and products of many rows become two-dimensional.

    Raises UsageError and ModelError as `mpcompile.load` does, and where the model is quantized already or is no float32;
    MissingDependency without ONNX Runtime.
    """
    onnxruntime.require()
    path = Path(path)
    model = open_model(path)
    _check_float(model, path)
    load(path, shapes)  # what mpcompile could never compile is refused before any work
    fix_shapes(model, shapes or {})
    ir.external_data.load_to_model(model)
    proto = _folded(_modern(ir.to_proto(model), path), path, fuse_layers)
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    inputs = {v.name: _port(v) for v in proto.graph.input if v.name not in constants}
    values = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    found = {v.name: _sizes(v) for v in values if v.type.tensor_type.HasField("shape")}
    return FloatModel(path, proto, inputs, constants, found | {n: a.shape for n, a in constants.items()})


def _check_float(model: ir.Model, path: Path) -> None:
    """Raises ModelError at quantizers, operators on codes, and other floats than float32."""
    for node in model.graph:
        name = node.op_type
        if node.domain in QONNX_DOMAINS or "QuantizeLinear" in name or "Integer" in name or name.startswith("QLinear"):
            raise ModelError(
                f"{path} is quantized already: node {node.name or node.op_type} ({node.op_type}); a float model would be "
                "accepted"
            )
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        kind = value.dtype.name if value.dtype else ""
        if kind in ("FLOAT16", "BFLOAT16", "DOUBLE"):
            raise ModelError(f"{path}: {value.name} is {kind}; a model in FLOAT would be accepted")


def _modern(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """In OPSET at least. Raises ModelError where onnx's converter cannot."""
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version >= OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter's C++ raises what it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: its opset {version} cannot be brought to {OPSET} ({reason})") from error


def _folded(proto: onnx.ModelProto, path: Path, fuse_layers: bool) -> onnx.ModelProto:
    """What ONNX Runtime makes of it by optimizations that keep standard operators: constants and BatchNorms folded,
    identities gone. Every node is named, shapes are inferred. Raises ModelError where it does not take the model."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 4
    with temporary_folder() as folder:
        given, made = folder / "float.onnx", folder / "folded.onnx"
        try:
            onnx.save(proto, given)
            options.optimized_model_filepath = str(made)
            left_out = [] if fuse_layers else list(LAYER_FUSIONS)
            ort.InferenceSession(str(given), options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out)
            folded = onnx.load(made)
        except Exception as error:  # protobuf's and ONNX Runtime's share no class
            raise ModelError(f"ONNX Runtime does not take {path}: {str(error).splitlines()[0]}") from error
    used = {node.domain for node in folded.graph.node}
    foreign = next((n for n in folded.graph.node if n.domain not in ("", "ai.onnx")), None)
    if foreign is not None:
        raise ModelError(
            f"{path}: node {foreign.name} ({foreign.op_type}) is of domain {foreign.domain}; operators of ONNX would be "
            "accepted"
        )
    kept = [o for o in folded.opset_import if o.domain in used | {""}]
    del folded.opset_import[:]
    folded.opset_import.extend(kept)
    taken = {v.name for v in folded.graph.input}  # a reader tells nodes and inputs apart by their names
    for at, node in enumerate(folded.graph.node):
        name = base = node.name or f"{node.op_type}_{at}"
        number = 1
        while name in taken:
            name, number = f"{base}.{number}", number + 1
        node.name = name
        taken.add(name)
    own_constants(folded.graph)
    del folded.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(folded, data_prop=True)


def own_constants(graph: onnx.GraphProto) -> None:
    """Every contraction gets weights and, but for a MatMul, a bias of its own, which can be changed without changing
    others; alpha and beta of a Gemm go into them."""
    constants = {t.name: t for t in graph.initializer}
    uses = Counter(t for node in graph.node for t in node.input)
    added: list[onnx.TensorProto] = []

    def own(node: onnx.NodeProto, index: int, what: str, array: np.ndarray) -> None:
        name = node.input[index] if index < len(node.input) else ""
        before = constants.get(name)
        if before is not None and uses[name] == 1:
            before.CopyFrom(numpy_helper.from_array(array, name))
            return
        node.input.extend([""] * (index + 1 - len(node.input)))
        node.input[index] = f"{node.name}.{what}"
        added.append(numpy_helper.from_array(array, node.input[index]))

    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.input[1] not in constants:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        if weight.dtype != np.float32:
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        own(node, 1, "weight", np.float32(attributes.get("alpha", 1.0)) * weight)
        if node.op_type == "MatMul":
            continue
        channels = weight.shape[0 if node.op_type == "Conv" or attributes.get("transB") else 1]
        channels *= attributes.get("group", 1) if node.op_type == "ConvTranspose" else 1
        bias = np.zeros(channels, np.float32)
        if len(node.input) > 2 and node.input[2]:
            given = constants.get(node.input[2])
            if given is None or math.prod(given.dims) not in (1, channels):
                continue  # no constant of each channel: it is left as it is
            bias += np.float32(attributes.get("beta", 1.0)) * numpy_helper.to_array(given).reshape(-1)
        own(node, 2, "bias", bias)
        kept = [a for a in node.attribute if a.name not in ("alpha", "beta")]
        del node.attribute[:]
        node.attribute.extend(kept)
    graph.initializer.extend(added)


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return Port(value.name, _sizes(value), np.dtype(kind))


def _sizes(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim)
