"""The cases of ONNX's backend tests that pass in the reference, compiled: many in one bundle, side by side.

`python -m tests.compile.onnx_backend` compiles all of them and writes down what passes, for the documentation.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from mpcompile.api.compile import compile_model
from mpcompile.compiler import pipeline
from mpcompile.errors import ModelError
from mpcompile.ir.graph import FloatOp, Graph, Node
from mpcompile.runtime.bundle import open_bundle
from mpcompile.targets import load_target
from tests.frontend.onnx_backend import FOUND, Outcome, counted, near, run_all

TOGETHER = 80
"""Cases in one bundle."""


def with_float(found: Mapping[str, Mapping[str, Outcome]]) -> dict[str, Outcome]:
    """The cases that pass and have an operator in float, by name; without those of integers that a bundle refuses."""
    return {n: o for outcomes in found.values() for n, o in outcomes.items() if compiles(o)}


def compiles(case: Outcome) -> bool:
    return case.kind == "passed" and "float" in case.nodes and all(map(_held, case.inputs.values()))


def _held(array: np.ndarray | None) -> bool:
    """Whether float32 tells its integers apart."""
    return array is None or array.dtype.kind not in "iu" or int(np.abs(array.astype(object)).max(initial=0)) <= 1 << 24


def refused(graph: Graph) -> str:
    """What the compiler says of a graph that it does not take; "" where it does."""
    try:
        pipeline.plan(graph, load_target("native"), pipeline.Options())
    except ModelError as error:
        return str(error)
    return ""


def differing(cases: Mapping[str, Outcome], folder: Path) -> list[str]:
    """Compiles the cases side by side, runs them, and names those whose outputs are not what they must be."""
    together, prefixes = Graph(), {name: f"case{i}." for i, name in enumerate(cases)}
    for name, case in cases.items():
        one = _prefixed(case.graph, prefixes[name])
        together.nodes += one.nodes
        together.types |= one.types
        together.inputs += one.inputs
        together.outputs += one.outputs
        together.dtypes |= one.dtypes
    with open_bundle(compile_model(together, output=folder / "cases.mpc"), 1) as bundle:
        results = []
        for i in range(max(case.graph.batch or 1 for case in cases.values())):
            fed = {
                prefixes[name] + t: _as_declared(case, t)[min(i, len(case.inputs[t]) - 1)]
                for name, case in cases.items()
                for t in case.graph.inputs
            }
            result = bundle.run(fed)
            results.append(result if isinstance(result, dict) else {together.outputs[0]: result})
    return [name for name, case in cases.items() if not _equal(case, prefixes[name], results)]


def _as_declared(case: Outcome, name: str) -> np.ndarray:
    """A case's input in the type that a bundle takes."""
    return case.inputs[name].astype(case.graph.dtypes.get(name, "float32"))


def _equal(case: Outcome, prefix: str, results: list) -> bool:
    def made(output: str) -> np.ndarray:
        return np.stack([np.asarray(found[prefix + output]) for found in results[: case.graph.batch or 1]])

    return all(made(t).shape == y.shape and near(made(t), y) for t, y in case.outputs.items())


def _prefixed(graph: Graph, prefix: str) -> Graph:
    """The graph with every name changed."""
    return Graph(
        [_renamed(node, prefix) for node in graph.nodes],
        {prefix + t: kind for t, kind in graph.types.items()},
        [prefix + t for t in graph.inputs],
        [prefix + t for t in graph.outputs],
        dtypes={prefix + t: dtype for t, dtype in graph.dtypes.items()},
    )


def _renamed(node: Node, prefix: str) -> Node:
    made = copy.copy(node)
    made.name = prefix + node.name
    made.inputs, made.outputs = ([prefix + t for t in names] for names in (node.inputs, node.outputs))
    if isinstance(made, FloatOp):
        model = onnx.ModelProto.FromString(made.model)
        for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            value.name = prefix + value.name
        for inner in model.graph.node:
            inner.input[:], inner.output[:] = (
                [t and prefix + t for t in names] for names in (inner.input, inner.output)
            )
        made.model = model.SerializeToString()
    return made


def main() -> None:
    found = run_all()
    told = {name: counts | {"compiled": 0} for name, counts in counted(found).items()}
    cases = {name: case for name, case in with_float(found).items() if not refused(case.graph)}
    with tempfile.TemporaryDirectory() as folder:
        for at in range(0, len(cases), TOGETHER):
            some = dict(list(cases.items())[at : at + TOGETHER])
            wrong = differing(some, Path(folder))
            assert not wrong, f"compiled, these differ: {', '.join(wrong)}"
    for operator, outcomes in found.items():
        told[operator]["compiled"] = len(cases.keys() & outcomes.keys())
    FOUND.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
