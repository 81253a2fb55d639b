"""A traced network → QONNX: torch.onnx writes every operator of the module, quantizers are nodes of QONNX among them.

Nodes that the search knows bear its names: a convolution its layer's, a quantizer its tensor's; the latency table and
the search meet by them. Nothing else that torch.onnx notes, such as where the code lies, stays in the file.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial

import onnx
import torch
from torch import Tensor, nn

from mpcompile.errors import MissingDependency, ModelError
from mpcompile.files import atomic_path
from mpcompile.search.trace.network import Traced, weights_of
from mpcompile.search.trace.plan import said_of
from mpcompile.search.trace.quantized import NAME, QONNX, Node, input_node

INPUT, OUTPUT = "input", "output"
OPSET, IR_VERSION = 18, 10
CONTRACTIONS = "Conv", "Gemm", "MatMul"


def export(network: Traced, path: str | os.PathLike) -> None:
    """Writes the file, whole or not at all: input `input` [1, …], outputs `output`, `output1`, …; at the bits that are set,
    in evaluation mode. Raises ModelError where a choice is being mixed, or torch.export cannot follow the module; and
    MissingDependency."""
    model = to_onnx(network)
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def to_onnx(network: Traced) -> onnx.ModelProto:
    """The same in memory."""
    for choice in network.choices():
        if choice.probs is not None:
            raise ModelError(f"{choice.name} is a mixture of bitwidths: set its bits before exporting")
    model = _traced(network, torch.zeros(1, *network.input_shape))
    _without_notes(model)
    quantized = network.weights[next(iter(network.weights))].bits is not None
    if quantized:
        _named(model.graph, network)
    model.graph.name, model.producer_name, model.producer_version = network.title, "mpcompile", ""
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def _traced(network: Traced, example: Tensor) -> onnx.ModelProto:
    try:
        import onnxscript  # noqa: F401  # torch.onnx says so only in a long message
    except ImportError:
        raise MissingDependency(
            "modules are written to ONNX with onnxscript, which is not installed: pip install onnxscript==0.7.2"
        ) from None
    training = network.training
    network.eval()
    try:
        with _quiet(), torch.no_grad(), _tokens_as_pixels(network):
            network.passing.nodes = nodes_of(network)
            outputs = [f"{OUTPUT}{i or ''}" for i in range(network.planned.outputs.num_leaves)]
            program = torch.onnx.export(
                network.model,
                (example,),
                dynamo=True,
                optimize=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=outputs,
            )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{network.title} cannot be traced: {said_of(_cause(error))}") from error
    finally:
        network.passing.nodes = {}
        network.passing.quantized.clear()
        network.train(training)
    assert program is not None
    return program.model_proto


@contextmanager
def _tokens_as_pixels(network: Traced) -> Iterator[None]:
    """A Linear over tokens is written as a convolution of one tap along them: products of a matrix run in float."""
    changed = []
    for (layer, quantization), planned in zip(weights_of(network), network.planned.layers.values(), strict=True):
        if planned.tokens and layer.choice.bits is not None:
            quantization.axes = 1
            layer.module.forward = partial(_over_tokens, layer.module)
            changed.append((layer, quantization))
    try:
        yield
    finally:
        for layer, quantization in changed:
            quantization.axes = 0
            del layer.module.forward


def _over_tokens(module: nn.Module, x: Tensor) -> Tensor:
    weight, bias = (getattr(module, name) for name in ("weight", "bias"))
    return nn.functional.conv1d(x.transpose(1, 2), weight, bias).transpose(1, 2)


def nodes_of(network: Traced) -> dict[int, Node]:
    """id of each choice that has bits → its node."""
    found = {id(choice): input_node(choice) for choice in network.tensors.values() if choice.bits is not None}
    for layer, quantization in weights_of(network):
        if layer.choice.bits is not None:
            found[id(layer.choice)] = quantization.node(layer.weight)
    return found


def _cause(error: BaseException) -> BaseException:
    """torch.onnx wraps what torch.export says in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx warns of its own deprecations, logs its steps, and prints what torch.export could not follow."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _without_notes(model: onnx.ModelProto) -> None:
    """Stack traces and the like."""
    graph = model.graph
    parts = [model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]
    for part in [*parts, *model.functions, *(n for f in model.functions for n in f.node)]:
        del part.metadata_props[:]
        part.doc_string = ""


def _named(graph: onnx.GraphProto, network: Traced) -> None:
    renamed: dict[str, str] = {}
    weights = {choice.name: layer for layer, choice in network.weights.items()}
    source: dict[str, str] = {}
    """Tensor → layer whose weights it holds."""
    found: set[str] = set()
    for node in graph.node:
        if node.domain == QONNX:
            name = next(a.s.decode() for a in node.attribute if a.name == NAME)
            kept = [a for a in node.attribute if a.name != NAME]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.name, renamed[node.output[0]] = name, name
            if name in weights:
                source[node.output[0]] = weights[name]
        elif node.op_type in CONTRACTIONS and len(node.input) > 1 and node.input[1] in source:
            node.name = source[node.input[1]]
            found.add(node.name)
        elif node.op_type in ("Transpose", "Identity", "Reshape") and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
    if missing := [layer for layer in network.weights if layer not in found]:
        raise ModelError(f"{missing[0]}: torch.onnx makes no convolution or product of it that could be found again")
    outputs = {o.name for o in graph.output}
    renamed = {old: new for old, new in renamed.items() if old not in outputs}
    for node in graph.node:
        node.input[:] = [renamed.get(t, t) for t in node.input]
        node.output[:] = [renamed.get(t, t) for t in node.output]
    for value in graph.value_info:
        value.name = renamed.get(value.name, value.name)
