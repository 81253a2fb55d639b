"""`mpcompile verify`: a model file against a bundle that was compiled from it, and against an outside executor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import UsageError
from mpcompile.frontend import graph_of, load_source
from mpcompile.ir.graph import Graph
from mpcompile.ir.plan import random_input
from mpcompile.reference import compare as check
from mpcompile.runtime.bundle import open_bundle
from mpcompile.witness.executors import AUTO
from mpcompile.witness.reading import Reading, check_reading

SAMPLES = 4


@dataclass(frozen=True)
class Verification:
    """What `verify` found by two comparisons: `bundle`, of every buffer with the exact reference, bit for bit; `reading`,
    of the model as it was read with the file in an outside executor, with the tolerance that float sums need."""

    bundle: check.Report
    reading: Reading

    @property
    def equal(self) -> bool:
        """False where either found a difference."""
        return self.bundle.equal and self.reading.equal

    @property
    def failed(self) -> list[str]:
        """Which comparisons found one: "bundle", "reading"."""
        return [name for name, found in (("bundle", self.bundle), ("reading", self.reading)) if not found.equal]

    @property
    def samples(self) -> int:
        return self.bundle.samples

    @property
    def rows(self) -> list[check.ComparedBuffer]:
        """Of `bundle`."""
        return self.bundle.rows

    @property
    def summary(self) -> str:
        """One line: what both say, or the one that found a difference."""
        told = [said for said, found in zip(self.lines(), (self.bundle, self.reading)) if self.equal or not found.equal]
        return "; ".join(told)

    def lines(self) -> list[str]:
        """One for each comparison, which says which it is."""
        return [
            self.bundle.summary if self.bundle.equal else f"bundle against reference: {self.bundle.summary}",
            self.reading.summary
            if self.reading.equal
            else f"reading against {self.reading.against}: {self.reading.summary}",
        ]

    def to_json(self) -> dict:
        """Plain numbers and strings; `samples` and `rows` are those of `bundle`."""
        told = {"equal": self.equal, "failed": self.failed, "summary": self.summary}
        return self.bundle.to_json() | told | {"reading": self.reading.to_json()}


def verify(
    model: str | os.PathLike | Graph,
    bundle: str | os.PathLike | check.TracedBundle,
    inputs: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int | None = None,
    witness: str = AUTO,
) -> Verification:
    """Runs `model` and `bundle` on `inputs` and compares every buffer of every layer with the exact reference; and the
    model as it was read with what an outside executor makes of the file, tensor by tensor.

    model: an ONNX file or a normalised Graph, of which no other executor knows. shapes: input → its shape, batch in front,
    where the file leaves sizes open. bundle: a file, or one that is open, here
    or on a device. inputs: by name, or one array where the model has one input, with or without a batch axis; without it,
    a few random samples. witness: "onnxruntime", "qonnx", "onnx" (its own evaluator, slow), "none"; "auto": qonnx for
    files with its operators, else ONNX Runtime, and where that is not installed or does not run the file, the result says
    so. Raises as `load`, `open_bundle`, `compare.verify` and `check_reading` do.
    """
    if isinstance(model, Graph):
        source, graph = None, model
        reading = Reading(
            "" if witness == "none" else "an outside executor", "" if witness == "none" else "it is no file"
        )
        given = inputs_of(graph, inputs)
    else:
        source = load_source(Path(model), shapes)
        graph, given = source.graph, inputs_of(source.graph, inputs)
        reading = check_reading(source, given, witness)
    return Verification(compare_bundle(graph, bundle, given, threads), reading)


def compare_bundle(
    graph: Graph,
    bundle: str | os.PathLike | check.TracedBundle,
    inputs: Mapping[str, np.ndarray],
    threads: int | None = None,
) -> check.Report:
    """The first of the two comparisons alone."""
    layers = fused(graph)
    if isinstance(bundle, (str, os.PathLike)):
        with open_bundle(bundle, threads) as opened:
            return check.verify(layers, opened, inputs)
    return check.verify(layers, bundle, inputs)


def fused(model: str | os.PathLike | Graph, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph of layers that compiling `model` starts from."""
    return apply_all(graph_of(model, shapes), TO_LAYERS)


def inputs_of(graph: Graph, inputs) -> dict[str, np.ndarray]:
    """By name. None: a few random samples, the same each time; float32 ones normal, of other types any of their integers.
    Raises UsageError at one array for several inputs."""
    if inputs is None:
        rng = np.random.default_rng(0)
        return {
            t: random_input(rng, (SAMPLES, *graph.types[t].shape), graph.dtypes.get(t, "float32")) for t in graph.inputs
        }
    if isinstance(inputs, Mapping):
        return dict(inputs)
    if len(graph.inputs) != 1:
        raise UsageError(f"the model has {len(graph.inputs)} inputs: pass a dict with {', '.join(graph.inputs)}")
    return {graph.inputs[0]: inputs}
