"""`mpcompile verify`: a model file against a bundle that was compiled from it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from mpcompile.compiler.passes.base import apply_all
from mpcompile.compiler.passes.to_layers import TO_LAYERS
from mpcompile.errors import UsageError
from mpcompile.frontend import graph_of
from mpcompile.ir.graph import Graph
from mpcompile.ir.plan import random_input
from mpcompile.reference import compare as check
from mpcompile.runtime.bundle import open_bundle

SAMPLES = 4


def verify(
    model: str | os.PathLike | Graph,
    bundle: str | os.PathLike | check.TracedBundle,
    inputs: np.ndarray | Mapping[str, np.ndarray] | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    threads: int | None = None,
) -> check.Report:
    """Runs both on `inputs` and compares every buffer of every layer with the exact reference.

    model: an ONNX file or a normalised Graph. shapes: input → its shape, batch in front, where the file leaves sizes open.
    bundle: a file, or one that is open, here or on a device. inputs: float32 by name, or one array where the
    model has one input, with or without a batch axis; without it, a few normal random samples. Raises as
    `load`, `open_bundle` and `compare.verify` do.
    """
    graph = fused(model, shapes)
    given = _inputs(graph, inputs)
    if isinstance(bundle, (str, os.PathLike)):
        with open_bundle(bundle, threads) as opened:
            return check.verify(graph, opened, given)
    return check.verify(graph, bundle, given)


def fused(model: str | os.PathLike | Graph, shapes: Mapping[str, Sequence[int]] | None = None) -> Graph:
    """The graph of layers that compiling `model` starts from."""
    return apply_all(graph_of(model, shapes), TO_LAYERS)


def _inputs(graph: Graph, inputs) -> dict[str, np.ndarray]:
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
