"""Bias correction: what quantized weights add to each output channel on average goes out of the bias again.

b' = b + mean over samples and places of (W − Ŵ)·x
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from mpcompile.latency import onnxruntime
from mpcompile.quantize.float_model import OPSET


def mean_output(node: onnx.NodeProto, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """float64 [O]: the mean of each output channel of a contraction of `weight` over an input whose mean over all samples
    is `x`, without batch axis: it is linear, so that this is the mean over all samples, borders included."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    del alone.input[:], alone.output[:]
    alone.input.extend(["x", "w"])
    alone.output.append("y")
    inputs = [helper.make_tensor_value_info("x", 1, [1, *x.shape]), helper.make_tensor_value_info("w", 1, weight.shape)]
    graph = helper.make_graph([alone], "layer", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    session = onnxruntime.session(model.SerializeToString(), 1)
    y = np.asarray(session.run(None, {"x": x[None].astype(np.float32), "w": weight.astype(np.float32)})[0])
    channel = 1 if node.op_type == "Conv" else y.ndim - 1
    return y.mean(tuple(a for a in range(y.ndim) if a != channel), dtype=np.float64)


def corrected(
    node: onnx.NodeProto, bias: np.ndarray, weight: np.ndarray, quantized: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """float32 [O]: the bias of a layer, corrected for its quantized weights; else as `mean_output`."""
    return (bias + mean_output(node, weight - quantized, x)).astype(np.float32)
