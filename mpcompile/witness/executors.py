"""A model's file as somebody else computes it, tensor by tensor: ONNX Runtime, qonnx's executor, onnx's own evaluator."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

from mpcompile.errors import MissingDependency, UsageError
from mpcompile.frontend.importer import QONNX_DOMAINS
from mpcompile.frontend.qoperator import EXPANSIONS

AUTO, NONE = "auto", "none"
Arrays = dict[str, np.ndarray]


class CannotRun(Exception):
    """An executor that does not run a file; its message goes on from the executor's title."""


@dataclass(frozen=True)
class Executor:
    """`title`: what messages call it; `module`: what it is imported as, and `install` makes that possible.
    `start(path, model, wanted)` gives what runs the model: its inputs by name to the tensors `wanted`, all with their batch
    axis."""

    title: str
    module: str
    install: str
    start: Callable[[Path, onnx.ModelProto, list[str]], Callable[[Arrays], Arrays]]

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


def choose(witness: str, model: onnx.ModelProto) -> Executor | None:
    """The executor of that name; AUTO: qonnx for a model with QONNX's operators, else ONNX Runtime; None for NONE. Raises
    UsageError at another name, MissingDependency where one was named that is not installed."""
    if witness == NONE:
        return None
    if witness == AUTO:
        return EXECUTORS["qonnx" if is_qonnx(model) else "onnxruntime"]
    if witness not in EXECUTORS:
        raise UsageError(f"there is no witness {witness}; {', '.join((AUTO, *EXECUTORS, NONE))} would be accepted")
    found = EXECUTORS[witness]
    if not found.installed:
        raise MissingDependency(f"comparing with {found.title} needs {found.module}: {found.install}")
    return found


def is_qonnx(model: onnx.ModelProto) -> bool:
    """Whether a model has operators of QONNX's domains."""
    return any(node.domain in QONNX_DOMAINS for node in model.graph.node)


@dataclass(frozen=True)
class Running:
    """An executor with a file in it; called with the inputs by name, it gives the tensors that were wanted, all with
    their batch axis."""

    executor: Executor
    run: Callable[[Arrays], Arrays]

    def __call__(self, inputs: Arrays) -> Arrays:
        """Raises CannotRun with the executor's reason."""
        try:
            return self.run(inputs)
        except Exception as error:  # the three share no class of exceptions
            raise CannotRun(f"fails at it: {reason_of(error)}") from error


def start(
    executor: Executor, path: Path, wanted: Sequence[str], batch: int, sizes: Mapping[str, Sequence[int]] | None = None
) -> Running:
    """The file of `path` in `executor`, a free batch fixed to `batch`, and what else is free of inputs to `sizes`, which
    are without batch. Raises CannotRun where it does not take the file."""
    try:
        model = onnx.load(path, load_external_data=executor.module != "onnxruntime")
        _fix_sizes(model.graph, batch, sizes or {})
        return Running(executor, executor.start(path, model, list(wanted)))
    except Exception as error:
        raise CannotRun(f"does not take it: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """One line, not too long, without ONNX Runtime's prefix and the place in its source."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    line = line.rpartition("[ONNXRuntimeError] : ")[2]
    line = re.sub(r"/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])", "", line)
    return line if len(line) <= 200 else line[:197] + "..."


def _fix_sizes(graph: onnx.GraphProto, batch: int, sizes: Mapping[str, Sequence[int]]) -> None:
    """Axis 0 of inputs and outputs, where it is free, other axes of inputs; initializers that older exporters list as
    inputs are none."""
    constants = {t.name for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
        for dim, size in zip(dims[1:], sizes.get(value.name, ())):
            if not dim.HasField("dim_value"):
                dim.dim_value = size
    # What the file says of shapes in between may have the free batch too: it is inferred again where somebody needs it.
    known = [v for v in graph.value_info if all(d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)]
    del graph.value_info[:]
    graph.value_info.extend(known)


def _also_out(model: onnx.ModelProto, wanted: list[str]) -> onnx.ModelProto:
    """`wanted` among the model's outputs."""
    there = {o.name for o in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in there)
    return model


def _on_codes(node: onnx.NodeProto) -> bool:
    """Whether an operator multiplies codes as such."""
    return (node.domain.removeprefix("ai.onnx"), node.op_type) in EXPANSIONS or "Integer" in node.op_type


def _onnxruntime(path: Path, model: onnx.ModelProto, wanted: list[str]) -> Callable[[Arrays], Arrays]:
    """Optimisations off: they would move and merge quantizers. External data stay in their files, which it reads itself.

    On CPUs without VNNI its products of UINT8 and INT8 saturate, unless an optimisation of its own rewrites the weights.
    So a file of operators on codes is run with optimisations, and every tensor as an output: none can be merged away.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if any(_on_codes(node) for node in model.graph.node):
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        _also_out(model, [o for node in model.graph.node for o in node.output if o])
    options.log_severity_level = 4
    folder = os.fspath(path.resolve().parent)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    options.add_session_config_entry("session.x64quantprecision", "1")
    data = _also_out(model, wanted).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda inputs: dict(zip(wanted, map(np.asarray, session.run(wanted, inputs))))


def _qonnx(path: Path, model: onnx.ModelProto, wanted: list[str]) -> Callable[[Arrays], Arrays]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        wrapped = ModelWrapper(model).transform(InferShapes())

    def run(inputs: Arrays) -> Arrays:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = execute_onnx(wrapped, dict(inputs), return_full_exec_context=True)
        return {name: np.asarray(found[name]) for name in wanted}

    return run


def _onnx(path: Path, model: onnx.ModelProto, wanted: list[str]) -> Callable[[Arrays], Arrays]:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(_also_out(model, wanted))
    return lambda inputs: dict(zip(wanted, map(np.asarray, evaluator.run(wanted, inputs))))


EXECUTORS = {
    "onnxruntime": Executor("ONNX Runtime", "onnxruntime", "pip install onnxruntime==1.31.1", _onnxruntime),
    "qonnx": Executor("qonnx", "qonnx", "pip install qonnx==1.0.0 onnxruntime==1.31.1", _qonnx),
    "onnx": Executor("onnx's evaluator", "onnx", 'pip install "mpcompile[compile]"', _onnx),
}
"""By the names that a user may ask for."""
