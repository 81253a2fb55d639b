"""A FloatOp by ONNX Runtime where that is installed, else by onnx's own reference implementation: neither is ours.

ONNX Runtime is asked first, because onnx's evaluator has faults of its own (LRN, Softmax below opset 13, grouped
transposed convolutions)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp

Evaluate = Callable[[dict[str, np.ndarray]], list[np.ndarray]]


def run_float_op(node: FloatOp, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The node's outputs, float32 without batch axis, from float32 inputs without one.

    A batch axis of 1 is added inside, and inputs get the dtypes that the node's model declares (an index: int64).
    Raises ModelError where neither knows the operator.
    """
    dtypes, evaluate = _loaded(node.model)
    feed = {name: x[None].astype(dtype) for (name, dtype), x in zip(dtypes.items(), inputs)}
    try:
        return [np.asarray(y, np.float32)[0] for y in evaluate(feed)]
    except Exception as error:  # whatever an evaluator raises of an operator that it does not know
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"node {node.name} ({node.op_type}): there is no reference for it: {reason[:80]}; ONNX Runtime may have one: "
            "pip install onnxruntime==1.31.1"
        ) from error


@lru_cache(maxsize=64)
def _loaded(model: bytes) -> tuple[dict[str, np.dtype], Evaluate]:
    """The dtype of each input, and what runs the model."""
    import onnx
    from onnx.helper import tensor_dtype_to_np_dtype

    proto = onnx.load_model_from_string(model)
    dtypes = {i.name: tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in proto.graph.input}
    return dtypes, _onnxruntime(model) or _onnx(proto)


def _onnxruntime(model: bytes) -> Evaluate | None:
    """None where it is not installed, or does not take the model."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # its own exceptions have no common class
        return None
    return lambda feed: [np.asarray(y) for y in session.run(None, feed)]


def _onnx(model) -> Evaluate:
    from onnx.reference import ReferenceEvaluator

    evaluator: list[ReferenceEvaluator] = []

    def evaluate(feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        if not evaluator:  # made here: it raises of operators that it does not know, too
            evaluator.append(ReferenceEvaluator(model))
        return [np.asarray(y) for y in evaluator[0].run(None, feed)]

    return evaluate
