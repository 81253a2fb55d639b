"""A whole function as an ONNX model, for everything that reads files: compile, tune, verify, quantize."""

from __future__ import annotations

import onnx

from mpcompile.errors import ModelError
from mpcompile.tvm_frontend import operators, quantizers  # noqa: F401  (their handlers)
from mpcompile.tvm_frontend.dataflow import Dataflow, NotMatched, Value
from mpcompile.tvm_frontend.fake_quantize import merge
from mpcompile.tvm_frontend.write import Writer


def whole_model(flow: Dataflow, inputs: dict[str, Value]) -> onnx.ModelProto:
    """All of a function: `inputs` by name, and results output0, output1, …. Raises ModelError, which names the first
    operator that has no form in ONNX here."""
    merge(flow)
    writer = Writer()
    for name, value in inputs.items():
        writer.names[value] = name
    needed = set(flow.results)
    for call in reversed(flow.calls):
        if needed.intersection(call.outputs):
            needed.update(call.inputs)
    for call in flow.calls:
        if not needed.intersection(call.outputs):
            continue
        try:
            writer.take(call)
        except NotMatched as reason:
            raise ModelError(
                f"{flow.name}: {call.name} ({call.op or 'no operator that is known'}): {reason}; BitSerialize compiles the "
                "regions around it and leaves it to TVM"
            ) from None
    outputs = []
    for i, value in enumerate(flow.results):
        if value in writer.names and value.call is None:
            raise ModelError(
                f"{flow.name}: its result {i} is an input or a constant; one that is computed would be accepted"
            )
        name = f"output{i}"
        writer.call = value.call
        writer.node("Identity", [value], name)
        outputs.append(Value(value.shape, value.dtype))
        writer.names[outputs[-1]] = name
    return writer.model(list(inputs.values()), outputs, flow.name)
