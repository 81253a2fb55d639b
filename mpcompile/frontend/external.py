"""Tensors whose data lie in another file: beside the model, and regular files, only."""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from mpcompile.errors import ModelError


def load_external(model: ir.Model, path: Path) -> None:
    """Reads every external tensor of `model`, which was read from `path`; those of attributes are in memory afterwards.
    Raises ModelError naming the tensor where its file is not in the model's folder, is no regular file (a pipe would be
    waited for), or does not hold it."""
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            _read(f"initializer {name}", value.const_value, path)
    for nodes in (model.graph.all_nodes(), *(f.all_nodes() for f in model.functions.values())):
        for node in nodes:
            for name, attribute in list(node.attributes.items()):
                what = f"attribute {name} of a {node.op_type}"
                if attribute.type == ir.AttributeType.TENSOR:
                    node.attributes[name] = ir.AttrTensor(name, _read(what, attribute.value, path))
                elif attribute.type == ir.AttributeType.TENSORS:
                    node.attributes[name] = ir.AttrTensors(name, [_read(what, t, path) for t in attribute.value])


def _read(what: str, tensor, path: Path):
    """The tensor, in memory where it was in a file."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor
    outside = os.path.normpath(tensor.location)
    if os.path.isabs(outside) or outside.split(os.sep)[0] == os.pardir:
        raise ModelError(
            f"the data of {what} of {path} lie in {tensor.location}; a file in the model's folder would be accepted"
        )
    file = path.parent / outside
    if file.exists() and not file.is_file():
        raise ModelError(f"the data of {what} of {path} lie in {file}, which is no file")
    tensor.base_dir = path.parent  # of a Constant's tensor, onnx-ir looks in the working directory
    try:
        return ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    except Exception as error:  # whatever the file, its offset or its length make numpy and mmap raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the data of {what} of {path} cannot be read from {file} ({reason})") from error
