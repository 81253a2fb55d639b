"""Every tensor of an ONNX file as somebody else computes it: qonnx's executor, ONNX Runtime, onnx's reference
evaluator."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator


def is_qonnx(path: Path) -> bool:
    return any(node.domain for node in onnx.load(path, load_external_data=False).graph.node)


def one_sample(path: Path) -> onnx.ModelProto:
    """The model with batch 1, its external data inside."""
    model = onnx.load(path)
    constants = {t.name for t in model.graph.initializer}
    inputs = [
        v for v in model.graph.input if v.name not in constants
    ]  # older exporters list initializers as inputs too
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    return model


def prepared_once(prepare):
    """`prepare(path)`, remembered while the file stays as it is: many inputs are given to one model."""

    @lru_cache(maxsize=4)
    def remembered(path: Path, changed: int):
        return prepare(path)

    return lambda path: remembered(path, path.stat().st_mtime_ns)


@prepared_once
def _for_qonnx(path: Path):
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.infer_shapes import InferShapes

    return ModelWrapper(one_sample(path)).transform(InferShapes())


def by_qonnx(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """x without batch axis; every tensor by name, without it too."""
    from qonnx.core.onnx_exec import execute_onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _for_qonnx(path)
        name = model.graph.input[0].name
        found = execute_onnx(model, {name: x[None]}, return_full_exec_context=True)
    return {n: a[0] for n, a in found.items() if np.ndim(a) and len(a) == 1}


def all_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float32 tensor among its outputs."""
    model = onnx.shape_inference.infer_shapes(model)
    wanted = {o for n in model.graph.node for o in n.output} - {o.name for o in model.graph.output}
    model.graph.output.extend(
        v for v in model.graph.value_info if v.name in wanted and v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
    return model


@prepared_once
def _session(path: Path) -> onnxruntime.InferenceSession:
    """Optimisations off: they would move and merge quantizers."""
    model = all_outputs(one_sample(path))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def by_onnxruntime(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """As by_qonnx."""
    session = _session(path)
    names = [o.name for o in session.get_outputs()]
    found = session.run(names, {session.get_inputs()[0].name: x[None]})
    return {n: a[0] for n, a in zip(names, found) if np.ndim(a) and len(a) == 1}


def by_onnx(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """onnx's own evaluator, for what ONNX Runtime has no kernels for."""
    model = all_outputs(one_sample(path))
    names = [o.name for o in model.graph.output]
    found = ReferenceEvaluator(model).run(names, {model.graph.input[0].name: x[None]})
    return {n: a[0] for n, a in zip(names, found) if np.ndim(a) and len(a) == 1}
