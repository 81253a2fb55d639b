"""A FloatOp by onnx's own reference implementation."""

from __future__ import annotations

import numpy as np

from mpcompile.ir.graph import FloatOp


def run_float_op(node: FloatOp, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The node's outputs, float32 without batch axis, from float32 inputs without one.

    A batch axis of 1 is added inside, and inputs get the dtypes that the node's model declares (an index: int64).
    """
    import onnx
    from onnx.helper import tensor_dtype_to_np_dtype
    from onnx.reference import ReferenceEvaluator

    model = onnx.load_model_from_string(node.model)
    feed = {}
    for declared, x in zip(model.graph.input, inputs):
        feed[declared.name] = x[None].astype(tensor_dtype_to_np_dtype(declared.type.tensor_type.elem_type))
    return [np.asarray(y, np.float32)[0] for y in ReferenceEvaluator(model).run(None, feed)]
