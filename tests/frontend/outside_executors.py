"""Every float tensor of an ONNX file as somebody else computes it: by what `verify` compares with, one sample at a time."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx

from mpcompile.witness.executors import EXECUTORS, is_qonnx, start


def name_of(path: Path) -> str:
    """Whose file it is: qonnx's for its own operators, ONNX Runtime's for standard ones."""
    return "qonnx" if is_qonnx(onnx.load(path, load_external_data=False)) else "onnxruntime"


@lru_cache(maxsize=4)
def _running(name: str, path: Path, changed: int):
    """Remembered while the file stays as it is: many inputs are given to one model. Also the input's name."""
    model = onnx.load(path, load_external_data=False)
    known = (
        model if name == "qonnx" else onnx.shape_inference.infer_shapes(model)
    )  # of its operators onnx knows nothing
    types = {v.name: v.type.tensor_type.elem_type for v in known.graph.value_info}
    written = [o for n in model.graph.node for o in n.output if o]
    wanted = [o for o in written if types.get(o, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT]
    constants = {t.name for t in model.graph.initializer}
    (given,) = (v.name for v in model.graph.input if v.name not in constants)
    return start(EXECUTORS[name], path, wanted, 1), given


def by(name: str, path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """x without batch axis; every tensor by name, without it too. `name`: of EXECUTORS."""
    run, given = _running(name, path, path.stat().st_mtime_ns)
    return {n: a[0] for n, a in run({given: x[None]}).items() if np.ndim(a) and len(a) == 1}


def by_qonnx(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    return by("qonnx", path, x)


def by_onnxruntime(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    return by("onnxruntime", path, x)


def by_onnx(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """onnx's own evaluator, for what ONNX Runtime has no kernels for."""
    return by("onnx", path, x)


def outside(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """By the executor whose file it is."""
    return by(name_of(path), path, x)
