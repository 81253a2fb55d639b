"""What an exporter wrote, as it is kept: its file without traces of the machine that made it, inputs, and the outputs of
the exporter's own framework or runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

FOLDER = Path(__file__).resolve().parents[1] / "data" / "exporters"
LIST = FOLDER / "exporters.json"


class Exporter(NamedTuple):
    """`make(folder)` writes a file there, and returns its path, inputs by name with the batch in front, and the outputs of
    `witness` for them. `package`: whose version is noted; `what`: the form of the file, in words."""

    make: Callable[[Path], tuple[Path, dict[str, np.ndarray], list[np.ndarray]]]
    package: str
    what: str
    witness: str


EXPORTERS: dict[str, Exporter] = {}
"""By the name of the kept file."""


def exporter(name: str, package: str, what: str, witness: str = "ONNX Runtime"):
    def register(make):
        EXPORTERS[name] = Exporter(make, package, what, witness)
        return make

    return register


def keep(name: str, folder: Path) -> str:
    """Makes and keeps one; a line that says so. What was kept before stays where all that differs is the last bits of
    floats, as between machines."""
    e = EXPORTERS[name]
    path, inputs, outputs = e.make(folder)
    model = stripped(onnx.load(path))
    FOLDER.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {f"in_{n}": a for n, a in inputs.items()} | {
        f"out_{i}": np.asarray(a) for i, a in enumerate(outputs)
    }
    if as_kept(name, model, arrays):
        return f"{name}: as it is kept"
    onnx.save(model, FOLDER / f"{name}.onnx")
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    told = json.loads(LIST.read_text()) if LIST.exists() else {}
    told[name] = {"package": e.package, "version": version(e.package), "what": e.what, "witness": e.witness}
    LIST.write_text(json.dumps(dict(sorted(told.items())), indent=1) + "\n")
    return f"{name}: {(FOLDER / f'{name}.onnx').stat().st_size / 1024:.0f} KB, {len(model.graph.node)} nodes"


def as_kept(name: str, model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> bool:
    """Whether the kept file has the same operators, integers, and, but for rounding, floats; inputs and outputs, too."""
    path = FOLDER / f"{name}.onnx"
    if not path.exists():
        return False
    (mine, held), (theirs, old) = apart(model), apart(onnx.load(path))
    with np.load(FOLDER / f"{name}.npz") as kept:
        if set(kept) != set(arrays):
            return False
        pairs = [*zip(held, old), *((arrays[n], kept[n]) for n in kept)]
    return mine == theirs and len(held) == len(old) and all(alike(a, b) for a, b in pairs)


def apart(model: onnx.ModelProto) -> tuple[bytes, list[np.ndarray]]:
    """The model without its tensors' values, its inner tensors numbered in place of their names, which qonnx draws by
    chance; and the values."""
    bare = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [*bare.graph.node, *(n for f in bare.functions for n in f.node)]
    tensors = [
        *bare.graph.initializer,
        *(a.t for n in nodes for a in n.attribute if a.type == onnx.AttributeProto.TENSOR),
    ]
    values = [onnx.numpy_helper.to_array(t) for t in tensors]
    for tensor in tensors:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
    del bare.graph.value_info[:]
    names = {t: f"t{i}" for i, t in enumerate(t for n in bare.graph.node for t in n.output)}
    for value in bare.graph.output:
        names.pop(value.name, None)
    for node in bare.graph.node:
        node.input[:] = [names.get(t, t) for t in node.input]
        node.output[:] = [names.get(t, t) for t in node.output]
    return bare.SerializeToString(), values


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    return np.allclose(a, b, rtol=1e-5, atol=1e-6 * max(1e-30, float(np.abs(b).max(initial=0))))


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without stack traces, comments and metadata: they name folders of the machine."""
    graph = model.graph
    parts = (graph.node, graph.value_info, graph.input, graph.output, graph.initializer)
    of_functions = [part for f in model.functions for part in (f, *f.node, *f.value_info)]
    for part in (model, graph, *(p for some in parts for p in some), *of_functions):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def by_onnxruntime(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Outputs, one sample after another, without optimisations that move quantizers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    count = len(next(iter(inputs.values())))
    each = [session.run(None, {n: a[i : i + 1] for n, a in inputs.items()}) for i in range(count)]
    return [np.concatenate(some) for some in zip(*each)]


def by_qonnx(model, x: np.ndarray) -> list[np.ndarray]:
    """Output 0 of a qonnx ModelWrapper with one input."""
    from qonnx.core.onnx_exec import execute_onnx

    given, found = model.graph.input[0].name, model.graph.output[0].name
    return [np.concatenate([execute_onnx(model, {given: x[i : i + 1]})[found] for i in range(len(x))])]


def by_torch(module, x: np.ndarray) -> list[np.ndarray]:
    """Outputs of a torch module, one sample after another."""
    import torch

    with torch.no_grad():
        found = [module(torch.from_numpy(x[i : i + 1])) for i in range(len(x))]
    return [torch.cat([getattr(y, "value", y) for y in found]).numpy()]
