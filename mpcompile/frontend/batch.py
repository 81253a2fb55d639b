"""Whether an operator treats each sample of a batch by itself: decided by running it, not by what its name suggests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype
from onnx.reference import ReferenceEvaluator

from mpcompile.errors import ModelError
from mpcompile.frontend.importer import Source

PER_SAMPLE = frozenset(
    """
    Abs Acos Acosh Add Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip Conv ConvTranspose Cos Cosh Div
    Elu Erf Exp Floor Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid HardSwish InstanceNormalization
    LeakyRelu Log LpPool MaxPool Mish Mul Neg PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign
    Sqrt Sub Tan Tanh ThresholdedRelu
    """.split()
)
"""Operators that cannot mix samples where axis 0 of their output is the batch: by element, or by sample as ONNX defines
them. Running them would tell the same, slowly."""
BATCH = 3


def check_samples_apart(node: Source, model: onnx.ModelProto, inputs: dict[str, tuple[int, ...]]) -> None:
    """Runs `model`, the node alone over `inputs` (name → shape, batch 1 in front), on samples one by one and
    together. Raises ModelError where the results differ, or where onnx's evaluator cannot run it: then nobody knows."""
    if node.op_type in PER_SAMPLE:
        return
    types = {i.name: tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in model.graph.input}
    _check(node, model, inputs, types, (0, 2))
    if any(kind != np.float32 for kind in types.values()):  # 0 and 1 may be indices, but products of them tell little
        _check(node, model, inputs, types, (2, 7))


def _check(
    node: Source,
    model: onnx.ModelProto,
    inputs: dict[str, tuple[int, ...]],
    types: dict[str, np.dtype],
    integers: tuple[int, int],
) -> None:
    """Samples are normal numbers, or `integers` from one to below the other; where those are no indices, they tell
    nothing."""
    rng = np.random.default_rng(0)
    samples = [{n: _random(rng, s, types[n], integers) for n, s in inputs.items()} for _ in range(BATCH)]
    together = {name: np.concatenate([sample[name] for sample in samples]) for name in inputs}
    try:
        evaluator = ReferenceEvaluator(model)
        alone = [list(evaluator.run(None, sample)) for sample in samples]
    except Exception as error:  # the evaluator raises whatever its operators do
        if integers[0]:
            return
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{node}: whether it treats samples of a batch apart cannot be told, since onnx does not run it ({reason}); "
            "a file whose batch is fixed to 1 would be accepted"
        ) from error
    try:
        found = list(evaluator.run(None, together))
    except Exception:
        found = None
    expected = [np.concatenate([np.asarray(results[i]) for results in alone]) for i in range(len(alone[0]))]
    if found is None or not all(_same(np.asarray(f), e) for f, e in zip(found, expected)):
        raise ModelError(
            f"{node}: it mixes the samples of a batch; one that treats each by itself, or a file whose batch is fixed "
            "to 1, would be accepted"
        )


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype, integers: tuple[int, int]) -> np.ndarray:
    if dtype == np.float32:
        return rng.standard_normal(shape).astype(np.float32)
    return rng.integers(*integers, shape).astype(dtype)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)
